"""What a command was pointed at: a run folder, a bundle or an embeddings file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError
from common.optional_packages import needs
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from embeddings.hashes import encoder_model_hash, vectors_model_hash

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run

UNNAMED = "unnamed"


@dataclass(frozen=True)
class Source:
    """Embeddings to look at, the model they came from, and the run behind them if there is one.

    ``items`` are a run's test items, or every row of an embeddings file. ``fit`` and ``cohort`` are
    a run's validation and training items; None for a file.
    """

    items: EmbeddingSet
    model_hash: str
    split: str
    fit: EmbeddingSet | None = None
    cohort: EmbeddingSet | None = None


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's folder."""
    return (path / "manifest.json").is_file()


def is_run(path: Path) -> bool:
    """Whether a path is a run's folder."""
    return (path / "config.yaml").is_file() and not is_bundle(path)


def open_source(path: Path, model: str = UNNAMED) -> Source:
    """Read a run folder or an embeddings file; raises InputError when it is neither."""
    if is_run(path):
        return source_of_run(open_run(path))
    if path.is_dir():
        raise InputError(
            f"{path} is neither a run folder (no config.yaml) nor a bundle (no manifest.json): "
            "give the --out of `limen train`, or an embeddings file (.npz, .parquet)."
        )
    items = read_embeddings(path)
    return Source(items, vectors_model_hash(model, items.dimension), "all")


def open_run(path: Path) -> Run:
    """Open a run folder; raises InputError when it is none or not finished."""
    with needs("reading a run folder", "train"):
        from training.run_folder.run_folder import Run
    return Run.open(path)


def source_of_run(run: Run) -> Source:
    """A run's embeddings by split: tested on test classes, fitted on validation classes."""
    folder = run.ensure_encoder()
    model_hash = encoder_model_hash(folder / "encoder.onnx", folder / "preprocessing.json")
    test = run.embeddings("test")
    if test is None:
        raise InputError(
            f"{run.path} has no test items (data.split.test is 0, no data.test_path): nothing to look at. "
            "Train with some, or `limen embed` others and give that file to `limen evaluate` or `build`."
        )
    return Source(test, model_hash, "test", run.embeddings("validation"), run.embeddings("train"))
