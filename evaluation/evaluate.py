"""A set of embeddings in, a report out: every figure of docs/specification.md, Report, over all pairs."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import GallerySize
from api_schemas.report import Counts, Identification, Report
from common.errors import InputError
from common.progress import Say, Track, silent, silent_say
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.metrics.data_faults import list_data_faults
from evaluation.metrics.geometry import measure_geometry
from evaluation.metrics.identification import build_trials, measure_identification
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.metrics.retrieval import measure_retrieval
from evaluation.metrics.verification import measure_verification
from evaluation.pairs.copies import group_shared_items
from evaluation.pairs.exclusions import ExcludeSame, describe_exclusions, list_exclusions
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import compute_ranks
from evaluation.pairs.sweep import Sweep, sweep_pairs


def evaluate_embeddings(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
    exclude_same: ExcludeSame = None,
    scorer: Scorer | None = None,
    model_hash: str,
    split: str,
    settings: OpisSettings | None = None,
    track: Track = silent,
    say: Say = silent_say,
    seed: int = 0,
) -> Report:
    """Measure retrieval, verification, identification, threshold consistency and geometry.

    Args:
        items: each item a query of all others; the queries alone when a gallery is given. One that is in the
            gallery too, by id or by vector, is not compared with itself.
        unknown: queries whose classes the gallery lacks.
        exclude_same: what pairs share that are excluded everywhere, see ``evaluation.pairs.exclusions``.
        say: called with what about the labels spoils figures; the report's ``reasons`` hold it as well.
        seed: of the random halvings and the resampling of classes.

    Raises:
        InputError: fewer than two items, one class only, no class with two items, no pair left.
    """
    pairs = arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
    n_shared = _count_shared(items, gallery)
    _check_measurable(pairs, exclude_same, n_shared)
    settings = OpisSettings() if settings is None else settings
    lowest = None if settings.thresholds is None else min(settings.thresholds)
    sweep = sweep_pairs(pairs, deepest_far=settings.far[1], lowest=lowest, per_query=True, track=track)
    ranks = sweep.ranks
    assert ranks is not None
    verification = measure_verification(sweep)
    consistency, reasons = measure_consistency(sweep, settings, seed, track=track)
    references = items if gallery is None else gallery
    n_unknown = 0 if unknown is None else _count_shared(unknown, references)
    for shared, part, what in ((n_shared, items, "queries"), (n_unknown, unknown, "unknown queries")):
        if shared and part is not None:
            reasons.append(
                f"{shared} of {len(part)} {what} are in the gallery as well, by id or by vector: none was "
                "compared with itself."
            )
    if (left_out := describe_exclusions(exclude_same)) is not None:
        reasons.append(left_out)
    for fault in list_data_faults(items, exclude_same, gallery=gallery, unknown=unknown):
        reasons.append(fault)
        say(fault)
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
        geometry=measure_geometry(sweep, items),
    )


def _check_measurable(pairs: Pairs, exclude_same: ExcludeSame, n_shared: int) -> None:
    forms = " or ".join(f"'{form}'" for form in list_exclusions(exclude_same))
    left = f" once pairs that share {forms} are left out" if forms else ""
    if n_shared:
        left += (
            f" once {n_shared} queries are not compared with themselves, which are in the gallery by id or "
            "vector (give other items other ids)"
        )
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


def _count_shared(items: EmbeddingSet, gallery: EmbeddingSet | None) -> int:
    """How many of the queries are in the gallery as well."""
    shared = None if gallery is None else group_shared_items(items, gallery)
    return 0 if shared is None else int(np.isin(shared[0], shared[1]).sum())


def _measure_identification(
    sweep: Sweep, references: EmbeddingSet, unknown: EmbeddingSet | None, exclude_same: ExcludeSame
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
