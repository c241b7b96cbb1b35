"""The SOURCE argument of commands: the embeddings of a run folder or an embeddings file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from api_schemas.manifest import (
    CONFIG_FILE,
    ENCODER_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    PREPROCESSING_FILE,
    VECTORS_FILE,
)
from api_schemas.operating_point import Probability
from common.choices import UNNAMED
from common.console import say
from common.errors import InputError, needs
from embeddings.embedding_set import EmbeddingSet, concatenate
from embeddings.files import open_embeddings, read_embeddings
from embeddings.hashes import hash_encoder, hash_model_name

if TYPE_CHECKING:
    from evaluation.calibration.sets.sources import CalibrationSources
    from training.run_folder.run_folder import Run


@dataclass(frozen=True)
class EvaluationSource:
    """Embeddings to evaluate, and the model they come from.

    ``items`` are a run's test items, or every row of an embeddings file. ``validation`` and ``training`` are
    the other parts of a run; None for a file. ``match_probability`` is what the run's loss learned of it.
    ``role_column`` says which items are queries, where these are compared with the others alone.
    """

    items: EmbeddingSet
    model_hash: str
    split: str
    validation: EmbeddingSet | None = None
    training: EmbeddingSet | None = None
    match_probability: Probability | None = None
    role_column: str | None = None

    @property
    def fit(self) -> EmbeddingSet:
        """The items that a threshold is fitted on."""
        return self.items if self.validation is None else self.validation

    def collect_everything(self) -> EmbeddingSet:
        """The items of all parts, as a gallery of everybody who is known.

        Items of a separate test set may have the ids of others: theirs begin with ``test/`` then.
        """
        parts = [part for part in (self.training, self.validation) if part is not None]
        taken = np.concatenate([part.ids for part in parts]) if parts else self.items.ids[:0]
        own = self.items
        if np.isin(own.ids, taken).any():
            own = replace(own, ids=np.char.add("test/", own.ids))
        return concatenate([*parts, own])

    def get_calibration_sources(self) -> CalibrationSources:
        """What of these a threshold is fitted and proven on, and what the loss learned."""
        from evaluation.calibration.sets.sources import CalibrationSources

        return CalibrationSources(self.fit, self.proof, self.training, learned=self.match_probability)

    @property
    def proof(self) -> EmbeddingSet | None:
        """The items that a threshold is proven on; None where folds of ``fit`` are left out."""
        return None if self.validation is None else self.items


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's folder."""
    return (path / MANIFEST_FILE).is_file()


def is_run(path: Path) -> bool:
    """Whether a path is a run's folder."""
    return (path / CONFIG_FILE).is_file() and not is_bundle(path)


def open_source(path: Path, model: str = UNNAMED) -> EvaluationSource:
    """Read a run folder or an embeddings file; raises InputError if it is neither."""
    if is_run(path):
        return read_run(open_run(path))
    if path.is_dir():
        raise InputError(
            f"{path} is neither a run folder (no config.yaml) nor a bundle (no manifest.json): "
            "give the --out of `limen train`, or an embeddings file (.npz, .parquet)."
        )
    items = read_embeddings(path, say)
    return EvaluationSource(items, hash_model_name(model, items.dimension), "all")


def open_run(path: Path) -> Run:
    """Open a run folder; raises InputError if it is not one or not finished."""
    with needs("reading a run folder", "train"):
        from training.run_folder.run_folder import Run
    return Run.open(path)


def read_run(run: Run) -> EvaluationSource:
    """A run's embeddings: evaluated on test classes, thresholds fitted on validation classes."""
    folder = run.ensure_encoder()
    model_hash = hash_encoder(folder / ENCODER_FILE, folder / PREPROCESSING_FILE)
    test = run.load_embeddings("test")
    if test is None:
        raise InputError(
            f"{run.path} has no test items (data.split.test is 0, no data.test_path): nothing to evaluate. "
            "Train with some, or `limen embed` others and give that file to `limen evaluate` or `build`."
        )
    return EvaluationSource(
        test,
        model_hash,
        "test",
        run.load_embeddings("validation"),
        run.load_embeddings("train"),
        run.load_match_probability(),
        run.config.data.role_column,
    )


def read_items(source: Path) -> EmbeddingSet:
    """The items of an embeddings file, the training items of a run or the gallery of a bundle."""
    if is_bundle(source):
        return open_embeddings(source / VECTORS_FILE, source / ITEMS_FILE, say).read()
    if not is_run(source):
        return read_embeddings(source, say)
    items = open_run(source).load_embeddings("train")
    if items is None:
        raise InputError(f"{source} holds no embeddings of its training items: train it to its end.")
    return items
