"""A new model's queries against the gallery that an older one made: its points, its report, its vectors.

Thresholds hold for what is served: each pair is a query by the new network and an item of the gallery by the
old one. The old vectors of the run's validation and test items are those of the old gallery, or made by the
old bundle's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from api_schemas.build_config import CalibrationConfig
from api_schemas.manifest import ITEMS_FILE, VECTORS_FILE
from api_schemas.report import Report
from api_schemas.tradeoff import Tradeoff
from common.console import say
from common.errors import ConfigError, InputError
from common.progress import Track
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings
from evaluation.calibration.sets.two_models import exclude_own_model, join_models
from evaluation.evaluate import evaluate_embeddings
from index.bundle import read_bundle
from limen.pipeline.evaluation_source import EvaluationSource
from limen.pipeline.point_options import PointOptions

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run


@dataclass(frozen=True, eq=False)
class OldGallery:
    """What a bundle of a new network and an old gallery is made from.

    Attributes:
        gallery: of the old bundle. model_hash: of the model that made it.
        source: the run's items by both models, for the points (``two_models``).
        calibration: how points are chosen on such items.
        queries, references: the test items by the new model and by the old one.
    """

    gallery: EmbeddingSet
    model_hash: str
    source: EvaluationSource
    calibration: CalibrationConfig
    queries: EmbeddingSet
    references: EmbeddingSet

    def measure_report(self, tradeoffs: Sequence[Tradeoff], track: Track) -> Report:
        """New queries against old vectors of the test items, each query's own left out."""
        report = evaluate_embeddings(
            self.queries,
            gallery=self.references,
            model_hash=self.source.model_hash,
            split=self.source.split,
            track=track,
        )
        note = f"Queries by this model, the gallery by the older one {self.model_hash[:12]}."
        return report.model_copy(update={"tradeoffs": list(tradeoffs), "reasons": [note, *report.reasons]})


def check_options(options: PointOptions, gallery: EmbeddingSet | None, point_files: Sequence[Path]) -> None:
    """Raises ConfigError for what a kept gallery leaves no room for."""
    own = {"--gallery": gallery is not None, "--operating-point": bool(point_files)}
    given = [flag for flag, is_given in own.items() if is_given] + options.list_flags_of_one_set()
    for flag in given:
        raise ConfigError(
            f"{flag}: does not go with --gallery-of, whose points are of two models: leave it out."
        )


def open_old_gallery(
    path: Path, run: Run, source: EvaluationSource, calibration: CalibrationConfig, track: Track
) -> OldGallery:
    """Read the bundle, and the old vectors of the items that points are chosen and proven on.

    Raises:
        InputError: vectors of another length, or items that the old bundle can say nothing about.
    """
    manifest = read_bundle(path).manifest
    read = open_embeddings(path / VECTORS_FILE, path / ITEMS_FILE).read()
    own = {name: column for name, column in read.metadata.items() if not name.startswith("_")}
    gallery = replace(read, metadata=own)  # without what the index keeps for itself
    test_paths = run.config.data.test_paths or None
    references = _find_old_vectors(path, gallery, run, source.items, test_paths, track)
    joined = join_models(source.items, references)
    validation = source.validation
    if validation is not None:
        validation = join_models(validation, _find_old_vectors(path, gallery, run, validation, None, track))
    exclude_same = exclude_own_model(calibration.exclude_same)
    changes = {"exclude_same": exclude_same, "score": "cosine", "aggregate": "nearest"}
    say(
        f"The gallery of {path} is kept: {len(gallery):,} items of {len(gallery.classes):,} classes; points "
        "hold for queries of this run against it."
    )
    return OldGallery(
        gallery,
        manifest.gallery_model_hash or manifest.model_hash,
        EvaluationSource(joined, source.model_hash, source.split, validation, None),
        calibration.model_copy(update=changes),
        source.items,
        references,
    )


def _find_old_vectors(
    path: Path,
    gallery: EmbeddingSet,
    run: Run,
    items: EmbeddingSet,
    paths: Sequence[Path] | None,
    track: Track,
) -> EmbeddingSet:
    """The items in their order, with the old model's vectors."""
    order = np.argsort(gallery.ids)
    position = np.searchsorted(gallery.ids[order], items.ids).clip(max=len(order) - 1)
    rows = order[position]
    if (gallery.ids[rows] == items.ids).all() and (gallery.labels[rows] == items.labels).all():
        return EmbeddingSet(gallery.vectors[rows], items.labels, items.ids, items.metadata)
    if read_bundle(path).manifest.encoder is None:
        is_other = (gallery.ids[rows] != items.ids) | (gallery.labels[rows] != items.labels)
        raise InputError(
            f"{path} has no encoder, and its gallery lacks {int(is_other.sum())} items that the points are "
            f"calibrated on, e.g. '{items.ids[is_other][0]}', or labels them otherwise: give it one with "
            "`limen attach-encoder`."
        )
    from api_schemas.config import TeacherConfig
    from training.data.items import Items
    from training.data.teacher import embed_by_teacher

    teacher = TeacherConfig(bundle=str(path))
    plain = Items(items.vectors, items.labels, items.ids, items.metadata)
    return embed_by_teacher(teacher, run.config.data, plain, track, paths)
