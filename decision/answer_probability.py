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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import AnswerProbability
from common.array_types import Bools, Float64s, RowIndices
from common.errors import InputError

OUTCOMES = ("first", "second", "other")
OUTCOMES_ALONE = ("first", "other")
ALONE = "alone"

# a query's numbers, and what is made of them: products of two
ONE, SCORE, GAP, LOG_CLASSES = range(4)
FEATURES: dict[str, tuple[int, int]] = {
    "constant": (ONE, ONE),
    "score": (ONE, SCORE),
    "gap": (ONE, GAP),
    "log_classes": (ONE, LOG_CLASSES),
    "score_squared": (SCORE, SCORE),
    "gap_squared": (GAP, GAP),
    "score_gap": (SCORE, GAP),
    "score_log_classes": (SCORE, LOG_CLASSES),
    "gap_log_classes": (GAP, LOG_CLASSES),
}


def build_design(factors: RowIndices, numbers: Float64s) -> Float64s:
    """float64 [features, n], from the ``factors`` [2, features] of each and the ``numbers`` [4, n]."""
    return np.asarray(numbers[factors[0]] * numbers[factors[1]])


def find_factors(names: Sequence[str]) -> RowIndices:
    """int64 [2, features]: the two numbers that each feature is the product of."""
    return np.array([FEATURES[name] for name in names], dtype=np.int64).reshape(-1, 2).T


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

    def compute_odds(self, numbers: Float64s) -> Float64s:
        """float64 [outcomes, n]: log-odds against ``unknown``, of ``numbers`` [4, n]."""
        return np.asarray(self.values @ build_design(self._factors, numbers))

    @cached_property
    def rows(self) -> list[int]:
        """The outcomes' positions among all."""
        return [OUTCOMES.index(outcome) for outcome in self.outcomes]

    @cached_property
    def terms(self) -> list[list[tuple[float, int, int]]]:
        """For each outcome its weights, each with the two numbers whose product it weighs."""
        factors = [FEATURES[name] for name in self.names]
        return [
            [(weight, *pair) for weight, pair in zip(row, factors, strict=True)]
            for row in self.values.tolist()
        ]

    @cached_property
    def _factors(self) -> RowIndices:
        return find_factors(self.names)


@dataclass(frozen=True, eq=False)
class AnswerModel:
    """The weights of an operating point, ready to be applied.

    Scores and gaps beyond those that the weights were fitted on count as the nearest of these; the number of
    classes is extrapolated. The log-odds of the best class stay at their highest from the gap on where their
    square would make them fall again: no answer is less sure because its winner is clearer.
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
        score = np.array(best, dtype=np.float64, ndmin=1)
        gap = score - np.asarray(second, dtype=np.float64)
        if score.size == 1 and isinstance(n_classes, int):
            return self._compute_one(float(score[0]), float(gap[0]), n_classes, shift)
        ranked = np.isfinite(gap)
        numbers = np.empty((4, len(score)))
        numbers[ONE] = 1.0
        numbers[SCORE] = self._clip(score, "score")
        numbers[GAP] = self._clip(gap, "gap")
        numbers[LOG_CLASSES] = np.log(np.maximum(n_classes, 1.0))
        numbers[GAP, ~ranked] = 0.0
        outcomes = np.empty(numbers.shape)
        lift = self._compute_lift(numbers[SCORE], numbers[GAP], numbers[LOG_CLASSES])
        for chosen, matrix in ((ranked, self.ranked), (~ranked, self.alone)):
            if chosen.any():
                lifted = np.where(ranked, lift, 0.0)[chosen]
                outcomes[:, chosen] = _apply(matrix, numbers[:, chosen], shift, lifted)
        return AnswerOutcomes(*outcomes)

    def _compute_lift(self, score: Any, gap: Any, log_classes: Any) -> Any:
        """What the log-odds of the best class have lost since their vertex; numbers, or float64 [n] each."""
        square, constant, of_score, of_classes = self._gap_weights
        if square >= 0:
            return 0.0
        vertex = (constant + of_score * score + of_classes * log_classes) / (-2 * square)
        beyond = (vertex > 0) * (gap > vertex) * (gap - vertex)
        return -square * beyond * beyond

    @cached_property
    def _gap_weights(self) -> tuple[float, float, float, float]:
        """Weights of the gap's square, of the gap, and of its products with the score and the classes."""
        names = ("gap_squared", "gap", "score_gap", "gap_log_classes")
        square, constant, of_score, of_classes = (
            float(self.calibration.weights.get(f"first.{name}", 0.0)) for name in names
        )
        return square, constant, of_score, of_classes

    def _compute_one(self, score: float, gap: float, n_classes: int, shift: float) -> AnswerOutcomes:
        """As ``compute`` for one query: on arrays of one number it would take five times as long."""
        is_ranked = math.isfinite(gap)
        numbers = [1.0, 0.0, 0.0, math.log(max(n_classes, 1))]
        ranges = self.calibration.ranges
        for place, value, (low, high) in ((SCORE, score, ranges["score"]), (GAP, gap, ranges["gap"])):
            numbers[place] = min(max(value, low), high)
        lift = 0.0
        if is_ranked:
            lift = self._compute_lift(numbers[SCORE], numbers[GAP], numbers[LOG_CLASSES])
        else:
            numbers[GAP] = 0.0
        matrix = self.ranked if is_ranked else self.alone
        odds = [-math.inf, -math.inf, -math.inf, 0.0]
        for row, terms in zip(matrix.rows, matrix.terms, strict=True):
            odds[row] = shift + sum([weight * numbers[a] * numbers[b] for weight, a, b in terms])
        odds[0] += lift
        highest = max(odds)
        weights = [math.exp(value - highest) for value in odds]
        total = sum(weights)
        return AnswerOutcomes(*np.array([[weight / total] for weight in weights]))

    def _clip(self, values: Float64s, name: Literal["score", "gap"]) -> Float64s:
        low, high = self.calibration.ranges[name]
        return np.minimum(np.maximum(values, low), high)


def _apply(matrix: WeightMatrix, numbers: Float64s, shift: float, lift: Float64s) -> Float64s:
    """float64 [4, n]: the softmax of the log-odds, shifted, those of the first lifted; ``numbers`` [4, n]."""
    odds = np.full(numbers.shape, -np.inf)
    odds[-1] = 0.0
    odds[matrix.rows] = matrix.compute_odds(numbers) + shift
    odds[0] += lift
    weights = np.exp(odds - np.maximum.reduce(odds))
    return np.asarray(weights / np.add.reduce(weights))


def _compute_logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)
