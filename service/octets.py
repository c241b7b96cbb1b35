"""Search results as bytes; ``limen.client`` reads them, docs/serving.md describes the layout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index.gallery import Hit

MAGIC = b"LIMENSR1"


def packed(found: Sequence[Sequence[Hit]], model_hash: str, took_ms: float) -> bytes:
    """Head, hits of each query, similarities, scores, label numbers, ends of texts, texts."""
    hits = list(chain.from_iterable(found))
    numbers: dict[str, int] = {}
    label_of = [numbers.setdefault(hit.label, len(numbers)) for hit in hits]
    ids, labels = [hit.id.encode() for hit in hits], [label.encode() for label in numbers]
    numeric = (
        np.array([len(found), len(hits), len(labels)], dtype="<u4"),
        np.array([took_ms], dtype="<f4"),
        np.frombuffer(bytes.fromhex(model_hash), dtype="u1"),
        np.array([len(some) for some in found], dtype="<u4"),
        np.array([hit.similarity for hit in hits], dtype="<f4"),
        np.array([hit.score for hit in hits], dtype="<f4"),
        np.array(label_of, dtype="<u4"),
        _ends(ids),
        _ends(labels),
    )
    return b"".join([MAGIC, *(array.tobytes() for array in numeric), *ids, *labels])


def _ends(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    return np.cumsum([len(one) for one in texts], dtype=np.uint64).astype("<u4")
