"""A set of embeddings in, a report out: every figure of docs/specification.md, Report, over all pairs."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import GallerySize
from api_schemas.report import Counts, Identification, Report
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.metrics.geometry import measure_geometry
from evaluation.metrics.identification import build_trials, measure_identification
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.metrics.retrieval import measure_retrieval
from evaluation.metrics.verification import measure_verification
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import compute_ranks
from evaluation.pairs.sweep import Sweep, sweep_pairs


def evaluate_embeddings(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
    exclude_same: str | None = None,
    scorer: Scorer | None = None,
    model_hash: str,
    split: str,
    settings: OpisSettings | None = None,
    track: Track = silent,
    seed: int = 0,
) -> Report:
    """Measure retrieval, verification, identification, threshold consistency and geometry.

    Args:
        items: each item a query of all others; the queries alone when a gallery is given.
        unknown: queries whose classes the gallery lacks.
        exclude_same: a metadata column; pairs that share its value are excluded everywhere.
        seed: of the random halvings and the resampling of classes.

    Raises:
        InputError: fewer than two items, one class only, no class with two items, no pair left.
    """
    pairs = arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
    _check_measurable(pairs, exclude_same)
    settings = OpisSettings() if settings is None else settings
    sweep = sweep_pairs(pairs, deepest_far=settings.far[1], per_query=True, track=track)
    ranks = sweep.ranks
    assert ranks is not None
    verification = measure_verification(sweep)
    consistency, reasons = measure_consistency(sweep, settings, seed, track=track)
    references = items if gallery is None else gallery
    return Report(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=hash_items(items),
        split=split,
        score=pairs.scorer.score,
        reasons=reasons,
        counts=Counts(
            items=len(items),
            classes=len(items.classes),
            classes_scored=sum(row.utility is not None for row in consistency.per_class),
            queries_without_partner=int((ranks.n_partners == 0).sum()),
            genuine_pairs=pairs.n_genuine,
            impostor_pairs=pairs.n_impostor,
        ),
        retrieval=measure_retrieval(ranks),
        verification=verification,
        identification=_measure_identification(sweep, references, unknown, exclude_same),
        consistency=consistency,
        geometry=measure_geometry(sweep),
    )


def _check_measurable(pairs: Pairs, exclude_same: str | None) -> None:
    left = f" once pairs that share '{exclude_same}' are left out" if exclude_same else ""
    if len(pairs.classes) < 2:
        raise InputError(
            f"All items are of one class ('{pairs.classes[0]}'): at least two classes are needed "
            "for an impostor pair."
        )
    if pairs.n_impostor == 0:
        raise InputError(f"There is no impostor pair{left}: at least one pair of two classes is needed.")
    if pairs.n_genuine == 0:
        what = "every class has one item" if pairs.symmetric else "no query has its class in the gallery"
        raise InputError(
            f"There is no genuine pair{left or f' ({what})'}: at least one class needs two items to compare."
        )


def _measure_identification(
    sweep: Sweep, references: EmbeddingSet, unknown: EmbeddingSet | None, exclude_same: str | None
) -> Identification:
    best_of_unknown = None
    if unknown is not None:
        overlap = np.intersect1d(unknown.classes, references.classes)
        if len(overlap):
            raise InputError(
                f"The unknown queries hold the class '{overlap[0]}', which is in the gallery "
                f"({len(overlap)} such classes)."
            )
        pairs = arrange(unknown, gallery=references, exclude_same=exclude_same, scorer=sweep.pairs.scorer)
        best_of_unknown = compute_ranks(pairs).best
    size = GallerySize(items=len(references), classes=len(references.classes))
    return measure_identification(build_trials(sweep, best_of_unknown), size)
