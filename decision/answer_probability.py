"""The probability that the answer of a 1:N search is right: the label is, or the query is rightly unknown.

An answer rests on the score of the best class, its gap to the second best, and how many classes were
compared: among more classes the best of the wrong ones is higher. Four things may be true of a query:

- ``first``: it is of the best class;
- ``second``: it is of the second best;
- ``other``: it is of another class of the gallery;
- ``unknown``: it is of none.

Their probabilities are a softmax of log-odds against ``unknown`` that are linear in ``FEATURES``. A change of
the share of unknown queries multiplies the odds of the first three alike (Saerens et al. 2002, equation 2.4),
since it leaves alone what known queries look like and what unknown ones do. Where there is no second class,
weights of their own leave the gap out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import AnswerProbability
from common.array_types import Bools, Float64s
from common.errors import InputError

OUTCOMES = ("first", "second", "other")
OUTCOMES_ALONE = ("first", "other")
ALONE = "alone"

FEATURES: dict[str, Callable[[Float64s, Float64s, Float64s], Float64s]] = {
    "constant": lambda score, gap, log_classes: np.ones_like(score),
    "score": lambda score, gap, log_classes: score,
    "gap": lambda score, gap, log_classes: gap,
    "log_classes": lambda score, gap, log_classes: log_classes,
    "score_squared": lambda score, gap, log_classes: score * score,
    "gap_squared": lambda score, gap, log_classes: gap * gap,
    "score_gap": lambda score, gap, log_classes: score * gap,
    "score_log_classes": lambda score, gap, log_classes: score * log_classes,
    "gap_log_classes": lambda score, gap, log_classes: gap * log_classes,
}
"""By name, of score, gap and log of the number of classes, float64 [n] each."""


class AnswerOutcomes(NamedTuple):
    """Probabilities of what may be true of queries, float64 [n] each, with the sum 1."""

    first: Float64s
    second: Float64s
    other: Float64s
    unknown: Float64s

    def get_right(self, accepted: Bools) -> Float64s:
        """float64 [n]: that each answer is right, the best class where it was accepted, else "unknown"."""
        return np.where(accepted, self.first, self.unknown)


def check_unknown_share(share: float) -> None:
    """Raises InputError unless a share of unknown queries lies strictly between 0 and 1."""
    if not 0 < share < 1:
        raise InputError(
            "unknown_share is the share of queries that are of no class in the gallery, above 0 and below 1; "
            f"found {share:g}. If hardly any query is unknown, give 0.01; if hardly any is known, 0.99."
        )


@dataclass(frozen=True, eq=False)
class WeightMatrix:
    """The weights of one case as arrays.

    Attributes:
        outcomes: what the rows of ``values`` are the log-odds of.
        names: the features in the order of its columns.
        values: float64 [outcomes, features].
    """

    outcomes: tuple[str, ...]
    names: tuple[str, ...]
    values: Float64s

    @classmethod
    def read(cls, weights: Mapping[str, float], outcomes: tuple[str, ...], prefix: str = "") -> Self:
        """From weights by ``outcome.feature``; raises InputError for a feature that is none."""
        named = {
            (outcome, name.removeprefix(f"{prefix}{outcome}.")): weight
            for outcome in outcomes
            for name, weight in weights.items()
            if name.startswith(f"{prefix}{outcome}.")
        }
        names = tuple(dict.fromkeys(feature for _, feature in named))
        unknown = sorted(set(names) - set(FEATURES))
        if unknown:
            raise InputError(f"'{unknown[0]}' is no feature of an answer; there are {', '.join(FEATURES)}.")
        values = [[named.get((outcome, name), 0.0) for name in names] for outcome in outcomes]
        return cls(outcomes, names, np.array(values, dtype=np.float64))

    def write(self, prefix: str = "") -> dict[str, float]:
        """Weights by ``outcome.feature``."""
        return {
            f"{prefix}{outcome}.{name}": float(weight)
            for outcome, row in zip(self.outcomes, self.values, strict=True)
            for name, weight in zip(self.names, row, strict=True)
        }

    def compute_odds(self, score: Float64s, gap: Float64s, log_classes: Float64s) -> Float64s:
        """float64 [outcomes, n]: log-odds against ``unknown``."""
        design = np.stack([FEATURES[name](score, gap, log_classes) for name in self.names])
        return np.asarray(self.values @ design)


@dataclass(frozen=True, eq=False)
class AnswerModel:
    """The weights of an operating point, ready to be applied.

    Scores and gaps beyond those that the weights were fitted on count as the nearest of these, so that a
    squared term never turns round; the number of classes is extrapolated.
    """

    calibration: AnswerProbability
    ranked: WeightMatrix
    alone: WeightMatrix

    @classmethod
    def read(cls, calibration: AnswerProbability) -> Self:
        """From an operating point's section."""
        weights = calibration.weights
        return cls(
            calibration,
            WeightMatrix.read(weights, OUTCOMES),
            WeightMatrix.read(weights, OUTCOMES_ALONE, f"{ALONE}."),
        )

    def compute(
        self, best: ArrayLike, second: ArrayLike, n_classes: ArrayLike, unknown_share: float | None = None
    ) -> AnswerOutcomes:
        """Probabilities of what may be true of queries.

        Args:
            best: [n], the score of the best class.
            second: [n], that of the second best; NaN or -inf where no other class was compared.
            n_classes: [n] or one number, classes of the gallery.
            unknown_share: share of unknown queries; the one it was fitted at unless given.
        """
        share = self.calibration.unknown_share if unknown_share is None else unknown_share
        shift = _compute_logit(self.calibration.unknown_share) - _compute_logit(share)
        score = np.atleast_1d(np.asarray(best, dtype=np.float64))
        rival = np.broadcast_to(np.asarray(second, dtype=np.float64), score.shape)
        log_classes = np.log(np.broadcast_to(np.maximum(n_classes, 1), score.shape).astype(np.float64))
        outcomes = np.empty((4, len(score)))
        ranked = np.isfinite(rival)
        for chosen, matrix in ((ranked, self.ranked), (~ranked, self.alone)):
            if chosen.any():
                outcomes[:, chosen] = self._apply(
                    matrix, score[chosen], rival[chosen], log_classes[chosen], shift
                )
        return AnswerOutcomes(*outcomes)

    def _apply(
        self, matrix: WeightMatrix, score: Float64s, rival: Float64s, log_classes: Float64s, shift: float
    ) -> Float64s:
        """float64 [4, n]."""
        gap = np.zeros_like(score) if matrix is self.alone else self._clip(score - rival, "gap")
        odds = np.full((4, len(score)), -np.inf)
        odds[3] = 0.0
        rows = [OUTCOMES.index(outcome) for outcome in matrix.outcomes]
        odds[rows] = matrix.compute_odds(self._clip(score, "score"), gap, log_classes) + shift
        odds -= odds.max(axis=0)
        weights = np.exp(odds)
        return np.asarray(weights / weights.sum(axis=0))

    def _clip(self, values: Float64s, name: Literal["score", "gap"]) -> Float64s:
        low, high = self.calibration.ranges[name]
        return np.clip(values, low, high)


def _compute_logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
