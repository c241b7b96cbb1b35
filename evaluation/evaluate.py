"""A set of embeddings in, a report out: every figure of the contract's section 6, over all pairs."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import GallerySize
from api_schemas.report import Counts, Identification, Report
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import data_hash
from evaluation.metrics.geometry import geometry
from evaluation.metrics.identification import identification, trials
from evaluation.metrics.opis import Settings, consistency
from evaluation.metrics.retrieval import retrieval
from evaluation.metrics.verification import verification
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import ranks_of
from evaluation.pairs.sweep import Sweep, sweep


def evaluate(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
    exclude_same: str | None = None,
    scorer: Scorer | None = None,
    model_hash: str,
    split: str,
    settings: Settings | None = None,
    track: Track = silent,
    seed: int = 0,
) -> Report:
    """Measure retrieval, verification, identification, threshold consistency and geometry.

    Args:
        items: the set, each item a query of all others; the queries alone when a gallery is given.
        gallery: references that the queries are compared with.
        unknown: queries whose classes the gallery lacks.
        exclude_same: a metadata column; pairs that share its value are left out everywhere.
        scorer: score of a pair; the similarity itself unless given.
        model_hash, split: copied into the report.
        settings: calibration range, grid and weights of consistency; the contract's unless given.
        track: shown the blocks of pairs.
        seed: of the random halvings and the resampling of classes.

    Raises:
        InputError: fewer than two items, one class only, no class with two items, no pair left.
    """
    pairs = arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
    _refuse_what_cannot_be_measured(pairs, exclude_same)
    chosen = Settings() if settings is None else settings
    found = sweep(pairs, deepest_far=chosen.far[1], per_query=True, track=track)
    ranks = found.ranks
    assert ranks is not None
    verified = verification(found)
    consistent, reasons = consistency(found, chosen, seed, track=track)
    without = int((ranks.n_partners == 0).sum())
    identified = _identification(found, items if gallery is None else gallery, unknown, exclude_same)
    return Report(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=data_hash(items),
        split=split,
        score=pairs.scorer.score,
        reasons=reasons,
        counts=Counts(
            items=len(items),
            classes=len(items.classes),
            classes_scored=sum(row.utility is not None for row in consistent.per_class),
            queries_without_partner=without,
            genuine_pairs=pairs.n_genuine,
            impostor_pairs=pairs.n_impostor,
        ),
        retrieval=retrieval(ranks),
        verification=verified,
        identification=identified,
        consistency=consistent,
        geometry=geometry(found),
    )


def _refuse_what_cannot_be_measured(pairs: Pairs, exclude_same: str | None) -> None:
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


def _identification(
    found: Sweep, references: EmbeddingSet, unknown: EmbeddingSet | None, exclude_same: str | None
) -> Identification:
    strangers = None
    if unknown is not None:
        overlap = np.intersect1d(unknown.classes, references.classes)
        if len(overlap):
            raise InputError(
                f"The unknown queries hold the class '{overlap[0]}', which is in the gallery "
                f"({len(overlap)} such classes)."
            )
        pairs = arrange(unknown, gallery=references, exclude_same=exclude_same, scorer=found.pairs.scorer)
        strangers = ranks_of(pairs).best
    size = GallerySize(items=len(references), classes=len(references.classes))
    return identification(trials(found, strangers), size)
