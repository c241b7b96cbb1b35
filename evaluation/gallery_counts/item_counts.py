"""For each item of a gallery, how many of its pairs reach each of fixed thresholds: exact, easy to update.

An item that comes, goes or changes changes only its own pairs, so that m changes among n items take
m n d multiplications and not n² d. The counts are whole numbers and the similarities those of decisions
(float64 products, rounded), so that the counts after any updates are those of a fresh computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, Int32s, Int64s, RowIndices
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.kernels.item_count_kernels import count_for_columns, count_for_rows
from evaluation.pairs.threads import compute_exact_similarities, count_cores, run_in_threads

BLOCK_ROWS = 512
BLOCK_COLUMNS = 4096
NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ItemCounts:
    """Items and their counts.

    Attributes:
        items: the items counted, each compared with every other.
        thresholds: float32 [k], ascending and distinct.
        levels: int32 [n, 2, k + 1]: impostor and genuine pairs of each item that reach exactly m of the
            thresholds; those that reach none are not counted.
    """

    items: EmbeddingSet
    thresholds: Float32s
    levels: Int32s


@dataclass(frozen=True)
class Changes:
    """What an update had to do: items that were counted anew, taken out, and left as they were."""

    added: int
    removed: int
    kept: int


def count_pairs(
    items: EmbeddingSet, thresholds: Float32s, scorer: Scorer, track: Track = silent
) -> ItemCounts:
    """The counts of all pairs of a gallery, in n² d / 2 multiplications."""
    ascending = np.unique(np.asarray(thresholds, dtype=np.float32))
    nothing = np.zeros((0, 2, len(ascending) + 1), dtype=np.int32)
    return update_counts(ItemCounts(items.subset(NO_ROWS), ascending, nothing), items, scorer, track)[0]


def update_counts(
    before: ItemCounts, items: EmbeddingSet, scorer: Scorer, track: Track = silent
) -> tuple[ItemCounts, Changes]:
    """The counts of a gallery as it is now, from those of the gallery as it was, with the same scorer.

    An item is the same while its id, its label and its vector are.
    """
    kept_before, kept, added = _compare(before.items, items)
    removed = np.flatnonzero(~kept_before.is_kept)
    levels = np.zeros((len(items), *before.levels.shape[1:]), dtype=np.int32)
    levels[kept] = before.levels[kept_before.rows]
    both = np.unique(np.concatenate([before.items.labels, items.labels]), return_inverse=True)[1].reshape(-1)
    old = _Side.select(before.items, both[: len(before.items)], removed, scorer)
    new = _Side.select(items, both[len(before.items) :], added, scorer)
    rest = _Side.select(items, both[len(before.items) :], kept, scorer)
    of_rest, of_new = levels[kept], levels[added]
    counter = _Counter(scorer, before.thresholds)
    steps = [(old, -1, None), (new, 1, of_new)]
    bands = [
        (side, slice(first, min(first + BLOCK_ROWS, len(side.codes))), sign, own)
        for side, sign, own in steps
        for first in range(0, len(side.codes), BLOCK_ROWS)
    ]
    for side, rows, sign, own in track(bands, "pairs of changed items", len(bands)):
        counter.count_with(side, rows, rest, sign, own, of_rest)
        if own is not None:
            counter.count_among(side, rows, own)
    levels[kept], levels[added] = of_rest, of_new
    return ItemCounts(items, before.thresholds, levels), Changes(len(added), len(removed), len(kept))


@dataclass(frozen=True, eq=False)
class _Kept:
    """Rows of the items as they were: which are kept, and the kept ones in the order they have now."""

    is_kept: Bools
    rows: RowIndices


def _compare(before: EmbeddingSet, now: EmbeddingSet) -> tuple[_Kept, RowIndices, RowIndices]:
    """The kept rows before and now, and the added rows now."""
    order = np.argsort(before.ids, kind="stable")
    position = np.searchsorted(before.ids[order], now.ids)
    candidate = order[np.minimum(position, len(before) - 1)] if len(before) else np.zeros(len(now), int)
    is_same = np.zeros(len(now), dtype=bool)
    if len(before):
        is_same = (before.ids[candidate] == now.ids) & (before.labels[candidate] == now.labels)
        rows = np.flatnonzero(is_same)
        is_same[rows] = (before.vectors[candidate[rows]] == now.vectors[rows]).all(axis=1)
    kept = np.flatnonzero(is_same)
    is_kept = np.zeros(len(before), dtype=bool)
    is_kept[candidate[kept]] = True
    return _Kept(is_kept, candidate[kept]), kept, np.flatnonzero(~is_same)


@dataclass(frozen=True, eq=False)
class _Side:
    """Vectors, class codes and densities of some items."""

    vectors: Float32s
    codes: Int64s
    densities: NDArray[Any] | None

    @classmethod
    def select(cls, items: EmbeddingSet, codes: NDArray[Any], rows: RowIndices, scorer: Scorer) -> _Side:
        vectors = items.vectors[rows]
        is_plain = scorer.is_similarity or not len(rows)
        densities = None if is_plain else np.asarray(scorer.compute_densities(vectors))
        return cls(vectors, codes[rows].astype(np.int64), densities)


@dataclass(frozen=True, eq=False)
class _Counter:
    scorer: Scorer
    ascending: Float32s

    def count_with(
        self, a: _Side, rows: slice, b: _Side, sign: int, of_a: Int32s | None, of_b: Int32s
    ) -> None:
        """Pairs of rows of ``a`` with all of ``b``, counted for both; for ``b`` alone without ``of_a``."""
        for left in range(0, len(b.codes), BLOCK_COLUMNS):
            columns = slice(left, min(left + BLOCK_COLUMNS, len(b.codes)))
            self._count(a, rows, b, columns, sign, None if of_a is None else of_a[rows], of_b[columns], 0)

    def count_among(self, side: _Side, rows: slice, counts: Int32s) -> None:
        """Pairs of rows with those after them and among themselves, each once."""
        for left in range(rows.start, len(side.codes), BLOCK_COLUMNS):
            columns = slice(left, min(left + BLOCK_COLUMNS, len(side.codes)))
            own = max(0, min(rows.stop, columns.stop) - left)  # the rows themselves, met from both ends
            self._count(side, rows, side, columns, 1, counts[rows], counts[columns], own, rows.start - left)

    def _count(
        self,
        a: _Side,
        rows: slice,
        b: _Side,
        columns: slice,
        sign: int,
        of_rows: Int32s | None,
        of_columns: Int32s,
        first_column: int,
        diagonal: int = -(2**31),
    ) -> None:
        scores = compute_exact_similarities(a.vectors[rows], b.vectors[columns])
        if a.densities is not None and b.densities is not None:
            scores = np.ascontiguousarray(
                self.scorer(scores, a.densities[rows][:, None], b.densities[columns][None, :]),
                dtype=np.float32,
            )
        codes = a.codes[rows], b.codes[columns]
        if of_rows is not None:
            run_in_threads(
                count_for_rows,
                [
                    (scores, *ends, diagonal, *codes, self.ascending, sign, of_rows)
                    for ends in _split(0, scores.shape[0])
                ],
            )
        run_in_threads(
            count_for_columns,
            [
                (scores, *ends, *codes, self.ascending, sign, of_columns)
                for ends in _split(first_column, scores.shape[1])
            ],
        )


def _split(first: int, stop: int) -> list[tuple[int, int]]:
    """The range in one part per core."""
    edges = np.linspace(first, stop, count_cores() + 1).astype(int).tolist()
    return [ends for ends in pairwise(edges) if ends[1] > ends[0]]
