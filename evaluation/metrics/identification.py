"""1:N search with unknown queries: does a stranger get a match, does a known query get its own?"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from api_schemas.operating_point import GallerySize
from api_schemas.report import Identification
from common.array_types import Bools, Float32s
from evaluation.pairs.sweep import Sweep

FPIRS = ("0.1", "0.01")


@dataclass(frozen=True)
class Trials:
    """Identification trials by their best score.

    Attributes:
        known: float32 [k]: the best score of each known query.
        right: bool [k]: whether that best is of the query's own class.
        unknown: float32 [u]: the best score of each unknown query.
    """

    known: Float32s
    right: Bools
    unknown: Float32s


def trials(found: Sweep, unknown: Float32s | None) -> Trials:
    """Trials of the queries of a sweep; ``unknown`` are best scores of further queries.

    Unknown queries are those given, and those whose class the gallery lacks; where there are none,
    every class in turn is left out of the gallery, so that each query is once known and once unknown.
    """
    ranks = found.ranks
    assert ranks is not None
    known = ranks.n_partners > 0
    if unknown is not None:
        strangers = unknown
    elif not found.pairs.symmetric and not known.all():
        strangers = ranks.best[~known]
    else:
        strangers = ranks.best
    best = np.maximum(ranks.best_partner, ranks.best)[known]
    return Trials(best, ranks.right[known], strangers[np.isfinite(strangers)])


def threshold_above(scores: Float32s, share: str) -> np.float32:
    """The highest score that must be refused so that at most ``share`` of the scores are accepted.

    Thresholds strictly above it keep the share; -inf where all may be accepted.
    """
    allowed = int(Fraction(share) * len(scores))
    if allowed >= len(scores):
        return np.float32(-np.inf)
    return np.float32(np.sort(scores)[::-1][allowed])


def identification(found: Trials, gallery: GallerySize) -> Identification:
    """FNIR at the best threshold whose FPIR is at most the key, and the AUROC of known against unknown."""
    fnir = {}
    for share in FPIRS:
        refused = threshold_above(found.unknown, share)
        matched = found.right & (found.known > refused)
        fnir[share] = float(1 - matched.mean()) if len(found.known) and len(found.unknown) else None
    auroc = None
    if len(found.known) and len(found.unknown):
        unknown = np.sort(found.unknown)
        below = np.searchsorted(unknown, found.known, side="left").sum()
        through = np.searchsorted(unknown, found.known, side="right").sum()
        auroc = float((int(below) + int(through)) / (2 * len(unknown) * len(found.known)))
    return Identification(gallery=gallery, unknown_queries=len(found.unknown), fnir_at_fpir=fnir, auroc=auroc)
