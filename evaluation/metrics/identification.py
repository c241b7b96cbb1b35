"""1:N search with unknown queries: does an unknown query get a match, does a known query get its own?"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from api_schemas.operating_point import GallerySize
from api_schemas.report import Identification
from common.array_types import Bools, Float32s
from evaluation.metrics.verification import compute_auc
from evaluation.pairs.sweep import Sweep

FPIRS = ("0.1", "0.01")


@dataclass(frozen=True)
class IdentificationTrials:
    """Identification trials by their best score.

    Attributes:
        known: float32 [k]: the best score of each known query.
        right: bool [k]: whether that best is of the query's own class.
        unknown: float32 [u]: the best score of each unknown query.
    """

    known: Float32s
    right: Bools
    unknown: Float32s


def build_trials(sweep: Sweep, unknown: Float32s | None) -> IdentificationTrials:
    """Trials of the queries of a sweep; ``unknown`` are best scores of further queries.

    Unknown queries are those given, and those whose class the gallery lacks; where there are none,
    every class in turn is left out of the gallery, so that each query is once known and once unknown.
    """
    ranks = sweep.ranks
    assert ranks is not None
    known = ranks.n_partners > 0
    if unknown is None:
        some_lack_their_class = not sweep.pairs.symmetric and not known.all()
        unknown = ranks.best[~known] if some_lack_their_class else ranks.best
    best = np.maximum(ranks.best_partner, ranks.best)[known]
    return IdentificationTrials(best, ranks.right[known], unknown[np.isfinite(unknown)])


def find_refused_score(scores: Float32s, fraction: str) -> np.float32:
    """The highest score that must be refused so that at most ``fraction`` of the scores are accepted.

    Thresholds strictly above it keep the fraction; -inf where all may be accepted.
    """
    allowed = int(Fraction(fraction) * len(scores))
    if allowed >= len(scores):
        return np.float32(-np.inf)
    return np.float32(np.sort(scores)[::-1][allowed])


def measure_identification(trials: IdentificationTrials, gallery: GallerySize) -> Identification:
    """FNIR at the best threshold whose FPIR is at most the key, and the AUROC of known against unknown."""
    given = bool(len(trials.known) and len(trials.unknown))
    fnir: dict[str, float | None] = dict.fromkeys(FPIRS)
    if given:
        for fpir in FPIRS:
            matched = trials.right & (trials.known > find_refused_score(trials.unknown, fpir))
            fnir[fpir] = float(1 - matched.mean())
    auroc = compute_auc(trials.known, trials.unknown) if given else None
    return Identification(
        gallery=gallery, unknown_queries=len(trials.unknown), fnir_at_fpir=fnir, auroc=auroc
    )
