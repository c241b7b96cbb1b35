"""The figures of one epoch, on validation classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from api_schemas.config import Monitor
from decision.embeddings import EmbeddingSet
from evaluation.evaluate import evaluate


@dataclass(frozen=True)
class Figures:
    """What ``metrics.jsonl`` keeps of a report; None where the items cannot give the figure."""

    recall_at_1: float | None
    map_at_r: float | None
    eer: float | None
    opis: float | None
    opis_debiased: float | None

    def height(self, monitor: Monitor | Mapping[Monitor, float]) -> float:
        """The monitored figure, or the weighted sum of several, turned so that higher is better.

        -inf where one of them cannot be given.
        """
        weights = {monitor: 1.0} if isinstance(monitor, str) else monitor
        total = 0.0
        for name, weight in weights.items():
            value: float | None = getattr(self, name)
            if value is None:
                return -math.inf
            total += weight * (-value if name in ("eer", "opis_debiased") else value)
        return total


def measure(items: EmbeddingSet, exclude_same: str | None = None) -> Figures:
    """Every item queries all others, exactly; see ``evaluation.evaluate``."""
    report = evaluate(items, model_hash="", split="validation", exclude_same=exclude_same)
    return Figures(
        recall_at_1=report.retrieval.recall_at_1,
        map_at_r=report.retrieval.map_at_r,
        eer=report.verification.eer,
        opis=report.consistency.opis,
        opis_debiased=report.consistency.opis_debiased,
    )
