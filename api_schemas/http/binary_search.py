"""The binary answer of ``POST /v1/search``: its layout, its writer and its reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.errors import InputError

MAGIC = b"LIMENSR1"
LAYOUT = (
    ("8", f"`{MAGIC.decode()}`"),
    ("4, 4, 4", "uint32: number of queries *q*, of hits *h*, of distinct labels *l*"),
    ("4", "float32: `took_ms`"),
    ("32", "model hash"),
    ("4*q*", "uint32: number of hits of each query; hits are grouped by query, best first"),
    ("4*h*", "float32: similarity of each hit"),
    ("4*h*", "float32: score of each hit"),
    ("4*h*", "uint32: label number of each hit, from 0"),
    ("4*h*", "uint32: end of each hit's id in the ids"),
    ("4*l*", "uint32: end of each label in the labels"),
    ("rest", "all ids, then all labels, UTF-8"),
)
"""Sizes in bytes and contents, in order; all numbers little-endian, no padding."""
_HEAD = Struct("<8sIIIf32s")


class WritableHit(Protocol):
    """The fields of a hit that the binary answer carries."""

    @property
    def id(self) -> str:
        """Id of the item."""

    @property
    def label(self) -> str:
        """Class of the item."""

    @property
    def similarity(self) -> float:
        """Cosine with the query."""

    @property
    def score(self) -> float:
        """The score that an operating point thresholds."""


@dataclass(frozen=True, eq=False)
class SearchArrays:
    """The hits of a search as arrays: grouped by query, best first.

    Attributes:
        ends: int64 [q], where the hits of each query end.
        ids, labels: [h] texts.
        similarities, scores: float32 [h].
        model_hash: the model that answered.
        took_ms: duration of the search in the service.
    """

    ends: Int64s
    ids: list[str]
    labels: list[str]
    similarities: Float32s
    scores: Float32s
    model_hash: str
    took_ms: float

    def of(self, query: int) -> slice:
        """The positions of one query's hits."""
        return slice(int(self.ends[query - 1]) if query else 0, int(self.ends[query]))


def describe_layout() -> str:
    """The layout in one paragraph, as the OpenAPI document quotes it."""
    parts = "; ".join(f"{size}: {content}" for size, content in LAYOUT)
    return f"Bytes in order, all numbers little-endian, no padding. {parts}."


def write_search_arrays(results: Sequence[Sequence[WritableHit]], model_hash: str, took_ms: float) -> bytes:
    """The binary answer for the hits of each query."""
    hits = list(chain.from_iterable(results))
    number_of: dict[str, int] = {}
    label_numbers = [number_of.setdefault(hit.label, len(number_of)) for hit in hits]
    ids, labels = [hit.id.encode() for hit in hits], [label.encode() for label in number_of]
    head = _HEAD.pack(MAGIC, len(results), len(hits), len(labels), took_ms, bytes.fromhex(model_hash))
    arrays = (
        np.array([len(hits_of_query) for hits_of_query in results], dtype="<u4"),
        np.array([hit.similarity for hit in hits], dtype="<f4"),
        np.array([hit.score for hit in hits], dtype="<f4"),
        np.array(label_numbers, dtype="<u4"),
        _compute_ends(ids),
        _compute_ends(labels),
    )
    return b"".join([head, *(array.tobytes() for array in arrays), *ids, *labels])


def read_search_arrays(content: bytes) -> SearchArrays:
    """Read a binary answer; raises InputError for bytes that are not one."""
    if not content.startswith(MAGIC) or len(content) < _HEAD.size:
        raise InputError(
            f"The answer is not a binary search result: it does not begin with {MAGIC.decode()}."
        )
    _, queries, hits, labels, took_ms, model_hash = _HEAD.unpack_from(content)
    lengths = [queries, hits, hits, hits, hits, labels]
    starts = [int(start) for start in _HEAD.size + 4 * np.cumsum([0, *lengths])]
    if len(content) < starts[-1]:
        raise InputError(f"The binary search result ends after {len(content)} bytes, in its numbers.")
    counts, similarities, scores, label_numbers, id_ends, label_ends = (
        np.frombuffer(content, kind, length, start)
        for kind, length, start in zip(
            ["<u4", "<f4", "<f4", "<u4", "<u4", "<u4"], lengths, starts, strict=False
        )
    )
    labels_start = starts[-1] + int(id_ends[-1] if hits else 0)
    end = labels_start + int(label_ends[-1] if labels else 0)
    if end != len(content):
        raise InputError(f"The binary search result has {len(content)} bytes, its head says {end}.")
    try:
        ids = _read_texts(content, starts[-1], id_ends.tolist())
        distinct_labels = _read_texts(content, labels_start, label_ends.tolist())
        label_of_hit = [distinct_labels[number] for number in label_numbers.tolist()]
    except (UnicodeDecodeError, IndexError):
        raise InputError("The binary search result is damaged: its texts cannot be read.") from None
    return SearchArrays(
        ends=np.cumsum(counts, dtype=np.int64),
        ids=ids,
        labels=label_of_hit,
        similarities=similarities.astype(np.float32),
        scores=scores.astype(np.float32),
        model_hash=model_hash.hex(),
        took_ms=took_ms,
    )


def _read_texts(content: bytes, start: int, ends: list[int]) -> list[str]:
    """The texts that end at these offsets from ``start``."""
    return [content[start + a : start + b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def _compute_ends(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    return np.cumsum([len(text) for text in texts], dtype=np.uint64).astype("<u4")
