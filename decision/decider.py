"""An operating point applied to candidates: score, accept rule, probability."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from api_schemas.operating_point import Aggregate, OperatingPoint, Probability
from common.array_types import Bools, Float32s, Float64s, Texts, UnitVectors
from decision.answer_probability import AnswerModel, AnswerOutcomes
from decision.errors import OtherRule
from decision.match_probability import compute_match_probability
from decision.scorers import Scorer, accepts

BEYOND_PROOF = 1.1  # times the items a 1:N point was proven for (docs/specification.md, Operating point)


class MatchCandidate(NamedTuple):
    """A class that a query may be of, with the item that speaks for it.

    ``probability`` that the query is of it; known of the two best alone.
    """

    label: str
    id: str
    score: float
    probability: float | None


class ScorePart(NamedTuple):
    """An addend of a score: what was measured, and what it adds."""

    name: str
    value: float
    contribution: float


class MatchExplanation(NamedTuple):
    """What a class's score is made of.

    ``items`` of the class counted; ``best`` and ``mean`` are similarities of the query with them (of several
    vectors, their mean), ``tightness`` the mean similarity of two of them. The contributions of ``parts`` and
    the ``intercept`` add up to the score, but for its rounding to float32.
    """

    label: str
    items: int
    best: float
    mean: float
    tightness: float | None
    intercept: float
    parts: tuple[ScorePart, ...]


class MatchDecision(NamedTuple):
    """The answer to "who is this?", from the best candidate by score.

    The best candidate is given even when the decision is "unknown"; everything about it is None only
    when no item was left to compare with. ``margin`` is its score less the best of another label. Where a
    class is scored as a whole, ``id`` and ``similarity`` are those of its nearest item. ``candidates`` are
    the best classes, the first of which decides. ``probability`` is that of this answer being right: of the
    label where it is a match, of the query being unknown where it is not. ``reason`` is "copy" where it is a
    match because the query is the item ``id`` itself, which says nothing of how well others are recognised.
    """

    decision: Literal["match", "unknown"]
    label: str | None
    id: str | None
    similarity: float | None
    score: float | None
    probability: float | None
    threshold: float
    margin: float | None
    operating_point: str
    beyond_proof: bool
    candidates: tuple[MatchCandidate, ...] = ()
    explanation: MatchExplanation | None = None
    reason: Literal["copy"] | None = None


class VerifyDecision(NamedTuple):
    """The answer to "are these two the same?"."""

    decision: Literal["match", "no_match"]
    similarity: float
    score: float
    probability: float | None
    threshold: float
    operating_point: str


@dataclass(frozen=True)
class Decider:
    """One operating point, ready to be applied."""

    point: OperatingPoint
    scorer: Scorer

    def check_rule(self, aggregate: Aggregate | None) -> None:
        """Raises OtherRule for another rule than the point's own; None takes the point's."""
        own = self.point.target.aggregate
        if aggregate not in {None, own}:
            raise OtherRule(
                f"The active operating point '{self.point.name}' was calibrated for the aggregate '{own}', "
                f"and its proof says nothing about '{aggregate}': leave aggregate out, or activate a point "
                f"made by `limen calibrate ... --target-fpir 0.01 --aggregate {aggregate}`."
            )

    def accepts(self, scores: Float32s) -> Bools:
        return accepts(scores, self.point.threshold)

    def compute_probabilities(self, scores: Float32s) -> list[float | None]:
        """Probability of a match for each of [n] scores; None where the point has no calibration."""
        if self._calibration is None:
            return [None] * len(scores)
        return list(compute_match_probability(scores, self._calibration).tolist())

    def compute_answers(
        self, best: Float64s, second: Float64s, n_classes: int, unknown_share: float | None = None
    ) -> AnswerOutcomes | None:
        """Probabilities of what may be true of queries; None where the point has no calibration of answers.

        ``best`` and ``second`` float64 [n], scores of the two best classes, NaN where there is no second, of
        ``n_classes`` in the gallery; ``unknown_share`` of the queries, that of the calibration unless given.
        """
        if self._answer_model is None:
            return None
        return self._answer_model.compute(best, second, n_classes, unknown_share)

    @cached_property
    def _answer_model(self) -> AnswerModel | None:
        return None if self.point.answer is None else AnswerModel.read(self.point.answer)

    @cached_property
    def _calibration(self) -> Probability | None:
        """The point's calibration with its lists as arrays: a list is converted at every use."""
        calibration = self.point.probability
        if calibration is None:
            return None
        ready = {
            name: np.array(value) if isinstance(value, list) else value
            for name, value in calibration.parameters.items()
        }
        return calibration.model_copy(update={"parameters": ready})

    def is_beyond_proof(self, items: int, vectors: int = 1) -> bool:
        """Whether the gallery is too large for the proof, or a query has another number of vectors."""
        target = self.point.target
        too_large = target.gallery is not None and items > BEYOND_PROOF * target.gallery.items
        return too_large or vectors != target.vectors


def compute_densities(
    deciders: Sequence[Decider],
    vectors: UnitVectors,
    get_labels: Callable[[], Texts],
    known: Container[str] = (),
) -> dict[str, Float32s]:
    """float32 [n] local densities of items under each key that the points need and that is not ``known``.

    ``get_labels`` gives the items' classes, text [n]; it is called where there is something to compute.
    """
    densities: dict[str, Float32s] = {}
    for decider in deciders:
        key = decider.scorer.density_key
        if key is not None and key not in known and key not in densities:
            densities[key] = decider.scorer.compute_densities(vectors, get_labels())
    return densities
