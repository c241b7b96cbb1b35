"""Names of the files in a run folder, besides those of a bundle, and its weights as safetensors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from common.atomic_files import write_atomically
from common.errors import InputError

SUMMARY_FILE = "run.json"  # its presence marks a finished run
METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
BACKBONE_FOLDER = "backbone"
CHECKPOINTS_FOLDER = "checkpoints"
BEST_WEIGHTS_FILE = "best.safetensors"
STEP_FILES = "step-*.safetensors"
CLASS_FILES = "classes-*.safetensors"  # class vectors that are split over processes, a file of each
ENCODER_FOLDER = "encoder"
EMBEDDINGS_FOLDER = "embeddings"
PARTS = ("train", "validation", "test")


def get_before_path(run: Path) -> Path:
    """The embeddings, by the run that this one started from, of the items that it is measured on."""
    return run / EMBEDDINGS_FOLDER / "before.npz"


def get_teacher_path(run: Path) -> Path:
    """The embeddings, by the teacher, of the items that the run is measured on."""
    return run / EMBEDDINGS_FOLDER / "teacher.npz"


def get_step_path(run: Path, step: int) -> Path:
    """The checkpoint after so many steps; names sort by step."""
    return run / CHECKPOINTS_FOLDER / STEP_FILES.replace("*", f"{step:08d}")


def get_class_pattern(checkpoint: Path) -> str:
    """Names of the files that hold the class vectors of a checkpoint; ``*`` stands for the rank."""
    step = checkpoint.stem.removeprefix(STEP_FILES.partition("*")[0])
    return CLASS_FILES.replace("*", f"{step}-*")


def get_best_path(run: Path) -> Path:
    """The weights of the best epoch."""
    return run / CHECKPOINTS_FOLDER / BEST_WEIGHTS_FILE


def get_embeddings_path(run: Path, part: str) -> Path:
    """The embeddings file of ``train``, ``validation`` or ``test``."""
    return run / EMBEDDINGS_FOLDER / f"{part}.npz"


def get_margins_path(run: Path) -> Path:
    """The mean margin of each training item over the run, in the order of its embeddings."""
    return run / EMBEDDINGS_FOLDER / "train_margins.npy"


def save_item_margins(run: Path, margins: Tensor) -> None:
    """Write the margins, float32 [n], NaN for an item that no batch held, atomically."""
    file = io.BytesIO()
    np.save(file, margins.cpu().numpy(), allow_pickle=False)
    write_atomically(get_margins_path(run), file.getvalue())


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a network's weights alone, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_atomically(path, safetensors.torch.save(plain))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a network's weights; raises InputError naming a missing or damaged file."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}.") from None


@contextmanager
def explain_foreign_tensors(path: Path) -> Iterator[None]:
    """Raises InputError that names the file when its tensors, loaded inside, are not those of the network."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "state_dict" not in str(error):
            raise
        raise InputError(
            f"{path} does not hold the tensors of this network: it is damaged, or another version wrote it; "
            "train again, in another --out."
        ) from None
