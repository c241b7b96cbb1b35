"""Alpha spending: how much each of many looks may risk, so that all of them together risk little.

The k-th look may raise a false alarm with probability ``6 alpha / (pi^2 k^2)``; over any number of looks
these add up to ``alpha`` (a union bound, so looks at overlapping data are covered as well; the idea is that
of Lan & DeMets 1983, Discrete Sequential Boundaries for Clinical Trials).
"""

from __future__ import annotations

from math import pi


def spend_alpha(alpha: float, look: int) -> float:
    """What the look of this number, from 1, may risk."""
    return 6 * alpha / (pi * look) ** 2
