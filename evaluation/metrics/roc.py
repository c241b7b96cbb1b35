"""AUC and equal error rate, from scores and from points of a ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float64s


def compute_auc(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Probability that a positive scores above a negative, ties counting one half.

    Args:
        positives, negatives: float [n] and [m], neither empty.
    """
    ascending = np.sort(negatives)
    below = np.searchsorted(ascending, positives, side="left").sum()
    through = np.searchsorted(ascending, positives, side="right").sum()
    return float((int(below) + int(through)) / (2 * len(negatives) * len(positives)))


def find_equal_error(thresholds: NDArray[np.floating], far: Float64s, frr: Float64s) -> tuple[float, float]:
    """The equal error rate and its threshold (docs/specification.md, FAR and FRR).

    The EER is where the line between two neighbouring points of the ROC meets FAR = FRR; the points are
    those given and that of accepting nothing. The threshold is the one of the two with the smaller
    |FAR - FRR|, the higher one when they are equal.

    Args:
        thresholds: float [k], ascending.
        far, frr: float64 [k], with FAR >= FRR at the first.
    """
    fars, frrs = np.append(far, 0.0), np.append(frr, 1.0)
    k = int(np.flatnonzero(fars >= frrs)[-1])
    eer = interpolate_equal_error(fars[k], frrs[k], fars[k + 1], frrs[k + 1])
    is_higher_nearer = abs(fars[k + 1] - frrs[k + 1]) <= abs(fars[k] - frrs[k])
    nearer = k + 1 if k + 1 < len(thresholds) and is_higher_nearer else k
    return float(eer), float(thresholds[nearer])


def interpolate_equal_error(far: Any, frr: Any, next_far: Any, next_frr: Any) -> Any:
    """Where the line through two points of a ROC meets FAR = FRR, elementwise; ``far`` where both are one."""
    span = (far - next_far) + (next_frr - frr)
    meeting = far * next_frr - next_far * frr
    return np.where(span == 0, far, meeting / np.where(span == 0, 1.0, span))
