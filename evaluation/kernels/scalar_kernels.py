"""Scalar functions of the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.kernels.compiled import compiled, elementwise


@compiled
def find_bin(score: np.float32, scale: np.float32, base: np.float32, last: np.float32) -> np.uint32:
    """The score's bin (see ``evaluation.pairs.sweep.ScoreBins``).

    Whole numbers below 2^24 are exact in float32 and stay in vector registers; an unsigned index needs no
    check whether it counts from the end.
    """
    return np.uint32(np.int32(min(max(np.floor(score * scale) - base, np.float32(0)), last)))


@elementwise
def compute_utility(specificity: Any, sensitivity: Any, c: Any) -> Any:
    """U = (1 + c²) φ ψ / (c² φ + ψ) with φ = 1 - FAR and ψ = 1 - FRR, 0 where both are 0; the OPIS utility.

    The one implementation (docs/specification.md, OPIS; arXiv 2307.04047, section 3): for arrays of any
    shape, for single numbers, and inside compiled loops.
    """
    weighted = c * c * specificity + sensitivity
    if weighted > 0.0:
        return (1.0 + c * c) * specificity * sensitivity / weighted
    return 0.0
