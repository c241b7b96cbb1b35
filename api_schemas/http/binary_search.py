"""Search results as arrays, read from a binary answer (layout in docs/serving.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.errors import InputError

MAGIC = b"LIMENSR1"
HEAD_BYTES = 56


class Hit(Protocol):
    """What a hit must have to be written."""

    @property
    def id(self) -> str:
        """Of the item."""

    @property
    def label(self) -> str:
        """Its class."""

    @property
    def similarity(self) -> float:
        """Cosine with the query."""

    @property
    def score(self) -> float:
        """What an operating point thresholds."""


@dataclass(frozen=True, eq=False)
class Found:
    """Hits of all queries one after the other, those of a query best first.

    Attributes:
        ends: int64 [q], where the hits of each query end.
        ids, labels: [h] texts.
        similarities, scores: float32 [h].
        model_hash: the model that answered.
        took_ms: what the search took in the service.
    """

    ends: Int64s
    ids: list[str]
    labels: list[str]
    similarities: Float32s
    scores: Float32s
    model_hash: str
    took_ms: float

    def of(self, query: int) -> slice:
        """The place of one query's hits."""
        return slice(int(self.ends[query - 1]) if query else 0, int(self.ends[query]))


def read_found(content: bytes) -> Found:
    """Read a binary answer; raises InputError for bytes that are none."""
    if content[:8] != MAGIC or len(content) < HEAD_BYTES:
        raise InputError("The answer is not a binary search result: it does not begin with LIMENSR1.")
    queries, hits, labels = (int(n) for n in np.frombuffer(content, "<u4", 3, 8))
    took = float(np.frombuffer(content, "<f4", 1, 20)[0])
    lengths = [queries, hits, hits, hits, hits, labels]
    starts = HEAD_BYTES + 4 * np.cumsum([0, *lengths])
    if len(content) < starts[-1]:
        raise InputError(f"The binary search result ends after {len(content)} bytes, in its numbers.")
    kinds = ["<u4", "<f4", "<f4", "<u4", "<u4", "<u4"]
    counts, similarities, scores, label_of, id_ends, label_ends = (
        np.frombuffer(content, kind, length, int(start))
        for kind, length, start in zip(kinds, lengths, starts, strict=False)
    )
    text = int(starts[-1])
    ids, end = _texts(content, text, id_ends.tolist())
    names, end = _texts(content, end, label_ends.tolist())
    if end != len(content):
        raise InputError(f"The binary search result has {len(content)} bytes, its head says {end}.")
    return Found(
        ends=np.cumsum(counts, dtype=np.int64),
        ids=ids,
        labels=[names[number] for number in label_of.tolist()],
        similarities=similarities.astype(np.float32),
        scores=scores.astype(np.float32),
        model_hash=content[24:HEAD_BYTES].hex(),
        took_ms=took,
    )


def _texts(content: bytes, start: int, ends: list[int]) -> tuple[list[str], int]:
    begins = [0, *ends[:-1]]
    last = start + (ends[-1] if ends else 0)
    return [content[start + a : start + b].decode() for a, b in zip(begins, ends, strict=False)], last


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
