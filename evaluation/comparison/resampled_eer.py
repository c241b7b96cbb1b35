"""The two error rates around the EER, class by class, so that the EER of resampled classes is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.array_types import Float64s, Int64s
from evaluation.metrics.roc import interpolate_equal_error
from evaluation.pairs.accepted_counts import count_accepted_per_class
from evaluation.pairs.sweep import Sweep

LEVELS = 65
REACH = 8.0  # the curve runs from an eighth of the EER to eight times it


@dataclass(frozen=True)
class ClassErrorCurve:
    """Accepted pairs at descending thresholds around the EER; an impostor pair counts for both classes.

    Attributes:
        genuine, impostor: int64 [classes, k]: accepted.
        genuine_total, impostor_total: int64 [classes].
    """

    genuine: Int64s
    impostor: Int64s
    genuine_total: Int64s
    impostor_total: Int64s

    def resample_eer(self, weights: Float64s) -> Float64s:
        """float64 [draws]: the EER where each class counts as often as it was drawn; NaN without pairs.

        An impostor pair counts with the weights of both of its classes. To first order a resample's FAR
        therefore moves twice as far from the pooled one as the fraction of its classes' accepted pairs
        does; the square of that fraction over the pooled FAR does so, and never falls below 0.

        Args:
            weights: float64 [draws, classes]; rows of equal entries give the EER of the curve itself.
        """
        pooled = self.impostor.sum(axis=0) / self.impostor_total.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            fraction = (weights @ self.impostor) / (weights @ self.impostor_total)[:, None]
            far = np.where(pooled > 0, np.square(fraction) / pooled, 0.0)
            frr = 1 - (weights @ self.genuine) / (weights @ self.genuine_total)[:, None]
        after = np.clip((far < frr).sum(axis=1), 1, far.shape[1] - 1)
        draws = np.arange(len(weights))
        f1, f2, r1, r2 = far[draws, after - 1], far[draws, after], frr[draws, after - 1], frr[draws, after]
        # where the rates do not cross within the curve, its nearer end
        eer = np.clip(interpolate_equal_error(f1, r1, f2, r2), np.minimum(f1, f2), np.maximum(f1, f2))
        return np.asarray(np.where(np.isfinite(f1 + r1), eer, np.nan))


def count_class_errors(sweep: Sweep, eer: float) -> ClassErrorCurve:
    """Count what each class accepts at thresholds around the EER, in one more walk over the pairs."""
    pairs = sweep.pairs
    n = pairs.n_impostor
    ends = max(eer, 1 / n) / REACH, min(1.0, max(eer, 1 / n) * REACH)
    ranks = np.clip(np.ceil(np.geomspace(*ends, LEVELS) * n), 1, n).astype(np.int64)
    genuine, impostor = count_accepted_per_class(pairs, sweep.find_impostor_scores(ranks))
    return ClassErrorCurve(genuine, impostor, pairs.genuine_per_class, pairs.impostor_per_class)
