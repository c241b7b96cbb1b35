"""Two loaded models on the items that both hold: a sample of whole classes, as `limen compare` does it."""

from __future__ import annotations

import hashlib
from threading import Lock

import numpy as np

from api_schemas.comparison import Comparison
from common.array_types import UnitVectors
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.compare import compare_models
from service.models.loaded_model import LoadedModel

MOST_ITEMS = 6_000
KEPT = 8


class ComparisonShelf:
    """The last comparisons of models, by both hashes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[tuple[str, str], Comparison] = {}

    def get(self, old: str, new: str) -> Comparison | None:
        """The comparison of two models by their hashes, if it was made."""
        return self._kept.get((old, new))

    def add(self, comparison: Comparison) -> None:
        """Keep a comparison; the oldest makes room."""
        with self._lock:
            self._kept[comparison.model_hash_a, comparison.model_hash_b] = comparison
            while len(self._kept) > KEPT:
                self._kept.pop(next(iter(self._kept)))


def compare_loaded(old: LoadedModel, new: LoadedModel) -> Comparison:
    """Compare two models on items of the same id and label, each at its own 1:1 point if it has one.

    Raises:
        InputError: they share too few items.
    """
    first, second = _collect_shared(old, new)
    thresholds = [_get_threshold(model) for model in (old, new)]
    return compare_models(
        first,
        second,
        scorer_a=old.gallery.scorer,
        scorer_b=new.gallery.scorer,
        threshold_a=thresholds[0],
        threshold_b=thresholds[1],
        model_hash_a=old.model_hash,
        model_hash_b=new.model_hash,
    )


def _get_threshold(model: LoadedModel) -> float | None:
    point = model.active_verify
    return None if point is None or point.score != model.gallery.scorer.score else point.threshold


def _collect_shared(old: LoadedModel, new: LoadedModel) -> tuple[EmbeddingSet, EmbeddingSet]:
    """The vectors of both models for a sample of the classes that they share."""
    share = min(1.0, MOST_ITEMS / max(1, new.gallery.n_items))
    ids: list[str] = []
    labels: list[str] = []
    vectors: tuple[list[UnitVectors], list[UnitVectors]] = ([], [])
    for item in new.iterate_items():
        if not _is_drawn(item.label, share):
            continue
        before = old.gallery.get(item.id)
        if before is None or before.label != item.label:
            continue
        ids.append(item.id)
        labels.append(item.label)
        vectors[0].append(before.vector)
        vectors[1].append(item.vector)
        if len(ids) >= 2 * MOST_ITEMS:
            break
    if len(ids) < 2:
        raise InputError(
            "The two models hold no two items of the same id and label, so there is nothing to compare them "
            "on: write the items for both."
        )
    return tuple(  # type: ignore[return-value]
        EmbeddingSet(np.stack(rows), np.array(labels), np.array(ids)) for rows in vectors
    )


def _is_drawn(label: str, share: float) -> bool:
    """Whether a class is in the sample: the same classes each time."""
    digest = hashlib.blake2b(label.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
