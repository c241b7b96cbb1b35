"""Genuine pairs, class by class, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.array_types import Bools, Float32s, Int32s, Int64s
from decision.scorers import Scorer
from evaluation.pairs.ordered_items import OrderedItems
from evaluation.pairs.threads import compute_exact_similarities

PART = 2**22  # pairs a part holds at most, but for a row that alone has more; 16 bytes a pair for cosine


@dataclass(frozen=True)
class GenuinePairs:
    """Genuine pairs: positions in ``a`` and ``b``, class codes (int32 [g]), scores, similarities.

    Scores and similarities (float32 [g]) are one array for cosine.
    """

    a: Int32s
    b: Int32s
    codes: Int32s
    scores: Float32s
    similarities: Float32s

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def concatenate(cls, parts: list[GenuinePairs]) -> GenuinePairs:
        """Parts one after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            no_scores, no_positions = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int32)
            return cls(no_positions, no_positions, no_positions, no_scores, no_scores)
        a, b, codes, scores = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("a", "b", "codes", "scores")
        )
        if all(part.scores is part.similarities for part in parts):
            return cls(a, b, codes, scores, scores)
        return cls(a, b, codes, scores, np.concatenate([part.similarities for part in parts]))


def score_rectangle(
    a: OrderedItems,
    b: OrderedItems,
    scorer: Scorer,
    similarities: Float32s,
    rows: slice | Int64s,
    columns: slice,
) -> Float32s:
    """float32 scores of a rectangle of similarities; the same array where the score is the similarity."""
    if scorer.is_similarity:
        return similarities
    scores = scorer(
        similarities,
        None if a.densities is None else a.densities[rows][:, None],
        None if b.densities is None else b.densities[columns][None, :],
    )
    return np.ascontiguousarray(scores, dtype=np.float32)


def score_class(
    a: OrderedItems, b: OrderedItems, symmetric: bool, scorer: Scorer, code: int, rows: slice
) -> tuple[Float32s, Float32s, Bools]:
    """Scores, similarities and which are pairs, of rows of a class with the class's items in ``b``.

    A set against itself gives both orders of a pair and leaves out an item's pair with itself.
    """
    columns = slice(int(b.starts[code]), int(b.starts[code + 1]))
    similarities = compute_exact_similarities(a.vectors[rows], b.vectors[columns])
    is_pair = np.ones(similarities.shape, dtype=bool)
    if symmetric:
        is_pair[np.arange(len(is_pair)), np.arange(rows.start, rows.stop) - columns.start] = False
    if a.groups is not None and b.groups is not None:
        is_pair &= a.groups[rows][:, None] != b.groups[columns][None, :]
    return score_rectangle(a, b, scorer, similarities, rows, columns), similarities, is_pair


def iterate_genuine(
    a: OrderedItems, b: OrderedItems, symmetric: bool, scorer: Scorer, per_class: Int64s
) -> Iterator[GenuinePairs]:
    """All genuine pairs in the order of their classes and rows; few classes make one part together.

    Args:
        per_class: int64 [classes], how many genuine pairs each class has.
    """
    waiting: list[GenuinePairs] = []
    for code in np.flatnonzero(per_class):
        height = max(1, PART // max(1, int(b.sizes[code])))
        for first in range(a.starts[code], a.starts[code + 1], height):
            rows = slice(int(first), int(min(first + height, a.starts[code + 1])))
            strip = _collect_strip(a, b, symmetric, scorer, int(code), rows)
            if sum(map(len, waiting)) + len(strip) > PART and waiting:
                yield GenuinePairs.concatenate(waiting)
                waiting = []
            waiting.append(strip)
    if waiting:
        yield GenuinePairs.concatenate(waiting)


def _collect_strip(
    a: OrderedItems, b: OrderedItems, symmetric: bool, scorer: Scorer, code: int, rows: slice
) -> GenuinePairs:
    scores, similarities, is_pair = score_class(a, b, symmetric, scorer, code, rows)
    start = int(b.starts[code])
    if symmetric:
        is_pair &= np.arange(rows.start, rows.stop)[:, None] < start + np.arange(is_pair.shape[1])[None, :]
    i, j = np.nonzero(is_pair)
    kept = scores[is_pair]
    return GenuinePairs(
        a=(i + rows.start).astype(np.int32),
        b=(j + start).astype(np.int32),
        codes=np.full(len(i), code, dtype=np.int32),
        scores=kept,
        similarities=kept if scores is similarities else similarities[is_pair],
    )
