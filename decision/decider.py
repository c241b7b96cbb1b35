"""An operating point applied to candidates: score, accept rule, probability."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from api_schemas.operating_point import Aggregate, OperatingPoint, Probability, Score
from common.array_types import Bools, Float32s, UnitVectors
from common.errors import LimenError
from decision.match_probability import match_probability
from decision.scorers import CosineScorer, Scorer, accepts

BEYOND_PROOF = 1.1  # times the items a 1:N point was proven for (contract, section 4)
COSINE = CosineScorer()


def density_name(score: Score) -> str | None:
    """The name of the local densities that a score is made with; the same score, the same name."""
    if score.kind == "cosine":
        return None
    return hashlib.sha256(score.model_dump_json().encode()).hexdigest()[:16]


def item_densities(
    points: Sequence[OperatingPoint], scorers: Sequence[Scorer], vectors: UnitVectors
) -> dict[str, Float32s]:
    """float32 [n] local densities of items under each name that the points ask for."""
    found: dict[str, Float32s] = {}
    for point, scorer in zip(points, scorers, strict=True):
        name = density_name(point.score)
        if name is not None and name not in found:
            found[name] = scorer.densities(vectors)
    return found


class NoOperatingPoint(LimenError):
    """A decision was asked for and no operating point makes it; the message gives the bundle's reasons."""

    def __init__(self, verb: Literal["match", "verify"], reasons: list[str]) -> None:
        self.reasons = reasons
        target = "--target-fpir" if verb == "match" else "--target-far"
        why = " ".join(reasons) or "The bundle was made without one."
        advice = f"Calibrate one with `limen calibrate ... {target} 0.01`."
        super().__init__(f"No operating point decides {verb}. {why} {advice}")


class OtherRule(LimenError):
    """A decision was asked for by another rule than the operating point was calibrated for."""


class Match(NamedTuple):
    """The answer to "who is this?", from the best candidate by score.

    The best candidate is given even when the decision is "unknown"; everything about it is None only
    when no item was left to compare with. ``margin`` is its score less the best of another label. By the
    mean of a class ``score`` is that mean, and ``id`` and ``similarity`` are those of its nearest item.
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


class Verification(NamedTuple):
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

    @cached_property
    def densities(self) -> str | None:
        """Under which name a gallery keeps its items' densities for this point; None if it needs none."""
        return density_name(self.point.score)

    @property
    def scores_are_similarities(self) -> bool:
        """Whether the best score is that of the most similar item."""
        return self.densities is None and self.point.target.aggregate == "nearest"

    def check_rule(self, aggregate: Aggregate | None) -> None:
        """Raises OtherRule for another rule than the point's own; None asks for the point's."""
        own = self.point.target.aggregate
        if aggregate not in {None, own}:
            raise OtherRule(
                f"The active operating point '{self.point.name}' was calibrated for the aggregate '{own}', "
                f"and its proof says nothing about '{aggregate}': leave aggregate out, or activate a point "
                f"made by `limen calibrate ... --target-fpir 0.01 --aggregate {aggregate}`."
            )

    def accepts(self, scores: Float32s) -> Bools:
        """Where a score reaches the threshold."""
        return accepts(scores, self.point.threshold)

    def probabilities(self, scores: Float32s) -> list[float | None]:
        """Probability of a match for each of [n] scores; None where the point carries no calibration."""
        if self._calibration is None:
            return [None] * len(scores)
        return list(match_probability(scores, self._calibration).tolist())

    @cached_property
    def _calibration(self) -> Probability | None:
        """The point's calibration with its lists as arrays: a list is read anew at every use."""
        calibration = self.point.probability
        if calibration is None:
            return None
        ready = {
            name: np.array(value) if isinstance(value, list) else value
            for name, value in calibration.parameters.items()
        }
        return calibration.model_copy(update={"parameters": ready})

    def beyond_proof(self, items: int) -> bool:
        """Whether a gallery of so many items is larger than the point was proven for."""
        proven = self.point.target.gallery
        return proven is not None and items > BEYOND_PROOF * proven.items
