"""Quantiles of times that were counted in bins."""

from __future__ import annotations

from collections.abc import Sequence

from service.monitoring.recorder import SECONDS


def compute_quantile(counts: Sequence[int], share: float) -> float:
    """The time in seconds that this share of requests stays below, linear within its bin.

    The last bin is open: its lower end is given, which is then too low.
    """
    wanted, below = share * sum(counts), 0.0
    edges = (0.0, *SECONDS)
    for place, count in enumerate(counts):
        if below + count >= wanted and count:
            if place == len(SECONDS):
                return SECONDS[-1]
            return edges[place] + (edges[place + 1] - edges[place]) * max(0.0, wanted - below) / count
        below += count
    return SECONDS[-1]
