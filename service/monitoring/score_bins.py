"""The bins of score histograms: the same for every point of a kind of score, so that they can be added up."""

from __future__ import annotations

from collections.abc import Callable
from math import asinh, sinh

from api_schemas.operating_point import Score

BINS = 64
LOWEST_COSINE = -0.28  # with bins of 0.02 up to 1
_REACH = 5.0  # asinh of the largest score that has a bin of its own: about 74


def get_bin_finder(score: Score) -> Callable[[float], int]:
    """The function that gives a score's bin; what lies outside is in the first or last."""
    return _find_cosine_bin if score.kind == "cosine" else _find_wide_bin


def list_edges(score: Score) -> list[float]:
    """The 65 edges of the 64 bins: even for cosine scores, wider away from 0 for unbounded ones."""
    if score.kind == "cosine":
        return [round(LOWEST_COSINE + number * 0.02, 10) for number in range(BINS + 1)]
    return [sinh((2 * number / BINS - 1) * _REACH) for number in range(BINS + 1)]


def _find_cosine_bin(value: float) -> int:
    place = int((value - LOWEST_COSINE) * 50.0)
    return 0 if place < 0 else min(place, BINS - 1)


def _find_wide_bin(value: float) -> int:
    place = int((asinh(value) / _REACH + 1) * (BINS / 2))
    return 0 if place < 0 else min(place, BINS - 1)
