"""An operating point applied to candidates: score, accept rule, probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from api_schemas.errors import LimenError
from api_schemas.operating_point import OperatingPoint
from decision.accept import accepts
from decision.probability import match_probability
from decision.score import CosineScorer

BEYOND_PROOF = 1.1  # times the items a 1:N point was proven for (contract, section 4)
COSINE = CosineScorer()


class NoOperatingPoint(LimenError):
    """A decision was asked for and no operating point makes it; the message gives the bundle's reasons."""

    def __init__(self, verb: Literal["match", "verify"], reasons: list[str]) -> None:
        self.reasons = reasons
        target = "--target-fpir" if verb == "match" else "--target-far"
        why = " ".join(reasons) or "The bundle was made without one."
        advice = f"Calibrate one with `limen calibrate ... {target} 0.01`."
        super().__init__(f"No operating point decides {verb}. {why} {advice}")


class Match(NamedTuple):
    """The answer to "who is this?", from the best candidate by score.

    The best candidate is given even when the decision is "unknown"; everything about it is None only
    when no item was left to compare with. ``margin`` is its score less the best of another label.
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

    def scores(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 scores, higher is more alike, of similarities of any shape."""
        return COSINE(similarities)

    def accepts(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where a score reaches the threshold."""
        return accepts(scores, self.point.threshold)

    def probabilities(self, scores: NDArray[np.float32]) -> list[float | None]:
        """Probability of a match for each of [n] scores; None where the point carries no calibration."""
        if self.point.probability is None:
            return [None] * len(scores)
        return list(match_probability(scores, self.point.probability).tolist())

    def beyond_proof(self, items: int) -> bool:
        """Whether a gallery of so many items is larger than the point was proven for."""
        proven = self.point.target.gallery
        return proven is not None and items > BEYOND_PROOF * proven.items
