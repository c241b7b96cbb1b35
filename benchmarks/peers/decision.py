"""A decision in the client's code: what a user of a search engine writes to get Limen's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict

THRESHOLD = 0.5
SLOPE, GAP_WEIGHT = 12.0, 4.0  # of a logistic model that somebody fitted elsewhere


class Decision(TypedDict):
    """Match or unknown, with evidence."""

    decision: str
    label: str
    id: int
    similarity: float
    margin: float
    probability: float


def decide(hits: Iterable[tuple[int, float, str]]) -> Decision:
    """Best item, distance to the best of another class, and the probability that the answer is right."""
    best_of: dict[str, tuple[float, int]] = {}
    for row, similarity, label in hits:
        if label not in best_of or similarity > best_of[label][0]:
            best_of[label] = (similarity, row)
    ranked = sorted(((value, label, row) for label, (value, row) in best_of.items()), reverse=True)
    similarity, label, row = ranked[0]
    margin = similarity - (ranked[1][0] if len(ranked) > 1 else -1.0)
    is_match = similarity >= THRESHOLD
    logit = SLOPE * (similarity - THRESHOLD) + GAP_WEIGHT * margin
    probability = 1 / (1 + math.exp(-logit if is_match else logit))
    return {
        "decision": "match" if is_match else "unknown",
        "label": label,
        "id": row,
        "similarity": similarity,
        "margin": margin,
        "probability": probability,
    }
