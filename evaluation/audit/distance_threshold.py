"""A threshold on a distance as the same threshold on cosine similarity, and back."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.report import DistanceKind
from common.errors import InputError

RANGES: dict[DistanceKind, tuple[float, float]] = {
    "similarity": (-1.0, 1.0),
    "cosine": (0.0, 2.0),
    "l2": (0.0, 2.0),
}
LENGTH_TOLERANCE = 0.01
RULES: dict[DistanceKind, str] = {
    "similarity": "cosine similarity >= {:g}",
    "cosine": "cosine distance (1 - similarity) <= {:g}",
    "l2": "L2 distance of vectors of length one <= {:g}",
}
_FROM_SIMILARITY: dict[DistanceKind, Callable[[float], float]] = {
    "similarity": lambda similarity: similarity,
    "cosine": lambda similarity: 1 - similarity,
    "l2": lambda similarity: math.sqrt(max(0.0, 2 - 2 * similarity)),
}


def convert_to_similarity(threshold: float, distance: DistanceKind) -> float:
    """The least float32 similarity that the threshold accepts: within the distance, or at least as similar.

    Raises InputError for a threshold that no two vectors of length one could meet, or all do.
    """
    low, high = RANGES[distance]
    if not low <= threshold <= high:
        other = ""
        if distance == "similarity" and threshold > 1:
            other = " Is it a distance (--distance cosine or l2), or one of vectors that were not normalised?"
        raise InputError(
            f"The threshold {threshold:g} of {distance} lies outside {low:g} to {high:g}, where vectors of "
            f"length one have all their values.{other}"
        )
    if distance == "similarity":
        nearest = np.float32(threshold)  # thresholds are float32 wherever decisions are made
        return float(nearest)
    accepts = _FROM_SIMILARITY[distance]
    exact = 1 - threshold if distance == "cosine" else 1 - threshold * threshold / 2
    guess = np.float32(exact)
    while accepts(float(guess)) > threshold:
        guess = np.nextafter(guess, np.float32(2))
    while accepts(float(np.nextafter(guess, np.float32(-2)))) <= threshold and guess > -1:
        guess = np.nextafter(guess, np.float32(-2))
    return float(guess)


def convert_from_similarity(similarity: float, distance: DistanceKind) -> float:
    """A similarity in the unit of a distance."""
    return _FROM_SIMILARITY[distance](similarity)


def check_lengths(embeddings: ArrayLike) -> None:
    """Raises InputError for rows, [n, d], that are not of length one: their L2 distances are other ones."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        return  # said where the rows are read
    lengths = np.linalg.norm(rows, axis=1)
    shortest, longest = float(lengths.min()), float(lengths.max())
    if abs(shortest - 1) > LENGTH_TOLERANCE or abs(longest - 1) > LENGTH_TOLERANCE:
        raise InputError(
            f"The vectors have lengths from {shortest:.4g} to {longest:.4g}, and an L2 threshold of such "
            "vectors is not one of vectors of length one, which Limen compares: normalise them and choose a "
            "threshold there, or give it as a cosine similarity."
        )
