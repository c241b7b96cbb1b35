"""Genuine pairs with their scores, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.threads import product

if TYPE_CHECKING:
    from evaluation.pairs import Pairs

PART = 2**22  # pairs a part holds at most, but for a row that alone has more; 16 bytes a pair for cosine


@dataclass(frozen=True)
class GenuinePairs:
    """Genuine pairs: positions in ``a`` and ``b``, class codes (int32 [g]), scores, similarities.

    Scores and similarities (float32 [g]) are one array for cosine.
    """

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    codes: NDArray[np.int32]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def joined(cls, parts: list[GenuinePairs]) -> GenuinePairs:
        """Parts one after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            none, nowhere = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int32)
            return cls(nowhere, nowhere, nowhere, none, none)
        a, b, codes, scores = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("a", "b", "codes", "scores")
        )
        if all(part.scores is part.similarities for part in parts):
            return cls(a, b, codes, scores, scores)
        return cls(a, b, codes, scores, np.concatenate([part.similarities for part in parts]))


def genuine_parts(pairs: Pairs) -> Iterator[GenuinePairs]:
    """All genuine pairs in the order of their classes and rows; few classes make one part together."""
    waiting: list[GenuinePairs] = []
    for code in np.flatnonzero(pairs.genuine_per_class):
        width = max(1, int(pairs.b.sizes[code]))
        height = max(1, PART // width)
        for first in range(pairs.a.starts[code], pairs.a.starts[code + 1], height):
            rows = slice(int(first), int(min(first + height, pairs.a.starts[code + 1])))
            strip = _strip(pairs, int(code), rows)
            if sum(map(len, waiting)) + len(strip) > PART and waiting:
                yield GenuinePairs.joined(waiting)
                waiting = []
            waiting.append(strip)
    if waiting:
        yield GenuinePairs.joined(waiting)


def class_scores(
    pairs: Pairs, code: int, rows: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Scores, similarities and which are pairs, of rows of a class with the class's items in ``b``.

    A set against itself gives both orders of a pair and leaves out an item's pair with itself.
    """
    columns = slice(int(pairs.b.starts[code]), int(pairs.b.starts[code + 1]))
    left, right = pairs.a.vectors[rows], pairs.b.vectors[columns]
    products = product(left.astype(np.float64), right.astype(np.float64))
    similarities = np.clip(products, -1.0, 1.0).astype(np.float32)
    kept = np.ones(similarities.shape, dtype=bool)
    if pairs.symmetric:
        kept[np.arange(len(kept)), np.arange(rows.start, rows.stop) - columns.start] = False
    if pairs.a.groups is not None and pairs.b.groups is not None:
        kept &= pairs.a.groups[rows][:, None] != pairs.b.groups[columns][None, :]
    return pairs.score(similarities, rows, columns), similarities, kept


def _strip(pairs: Pairs, code: int, rows: slice) -> GenuinePairs:
    scores, similarities, kept = class_scores(pairs, code, rows)
    start = int(pairs.b.starts[code])
    if pairs.symmetric:
        kept &= np.arange(rows.start, rows.stop)[:, None] < start + np.arange(kept.shape[1])[None, :]
    i, j = np.nonzero(kept)
    chosen = scores[kept]
    return GenuinePairs(
        a=(i + rows.start).astype(np.int32),
        b=(j + start).astype(np.int32),
        codes=np.full(len(i), code, dtype=np.int32),
        scores=chosen,
        similarities=chosen if scores is similarities else similarities[kept],
    )
