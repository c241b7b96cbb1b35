"""Names of the files in a run folder, and its weights as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from common.atomic_files import write_atomically
from common.errors import InputError

CONFIG = "config.yaml"
SUMMARY = "run.json"  # its presence marks a finished run
EMBEDDINGS = "embeddings"
BACKBONE = "backbone"
CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"


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
def refusing_other_tensors(path: Path) -> Iterator[None]:
    """Loading tensors of a file that are not those of the network becomes InputError, naming the file."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "state_dict" not in str(error):
            raise
        raise InputError(
            f"{path} does not hold the tensors of this network: it is damaged, or another version wrote it."
        ) from None
