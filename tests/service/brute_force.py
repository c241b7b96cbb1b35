"""Search by comparing every item, one pair at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from embeddings.similarity import compute_pair_similarities


def compute_similarities(bundle: Any, vector: np.ndarray) -> dict[str, float]:
    """Similarity of a unit vector to every item, one pair at a time."""
    return {
        item_id: float(compute_pair_similarities(vector[None], row[None])[0])
        for item_id, row in zip(bundle.gallery.ids, bundle.gallery.vectors, strict=True)
    }


def select_best(similarities: dict[str, float], k: int) -> list[tuple[str, float]]:
    """The k most similar items, ties by id."""
    return sorted(similarities.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
