"""All pairs of a labelled set, walked block by block: the one module that enumerates pairs.

Items are put in order of their class, so the genuine pairs of a row are one run of columns and
need no label comparison, and ``np.add.reduceat`` or ``np.maximum.reduceat`` over class starts
turns a block of columns into one figure per class. A set against itself is walked once per
unordered pair; queries against a gallery are walked in full. What a pair is, and of which class:
docs/specification.md, Pairs.

>>> from embeddings.embedding_set import EmbeddingSet
>>> pairs = arrange(EmbeddingSet.from_arrays([[1, 0], [1, 0.1], [0, 1]], ["x", "x", "y"]))
>>> pairs.n_genuine, pairs.n_impostor
(1, 2)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, Int32s, Int64s, Texts
from common.errors import InputError
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.kernels.impostor_kernels import BlockView
from evaluation.pairs.exclusions import ExcludeSame, read_groups
from evaluation.pairs.ordered_items import OrderedItems, order_items
from evaluation.pairs.threads import compute_exact_similarities, multiply_rows

BLOCK_ROWS = 1024
BLOCK_COLUMNS = 4096
EXACT_PRODUCT = 2**26  # pairs up to which blocks are computed in float64 and rounded, as decisions are


@dataclass(frozen=True)
class Block:
    """Scores and similarities float32 [m, n] of ``a`` rows against ``b`` columns, one array for cosine.

    For a set against itself only the columns beyond a row's own class are pairs of that block
    (``Pairs.mask_impostors`` masks them)."""

    rows: slice
    columns: slice
    scores: Float32s
    similarities: Float32s


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of ``a`` x ``b``, or all unordered pairs of ``a`` when ``symmetric``.

    Attributes:
        classes: the labels of both sides together, sorted as text.
        a, b: the two sides; one and the same object when symmetric.
    """

    classes: Texts
    a: OrderedItems
    b: OrderedItems
    symmetric: bool
    scorer: Scorer

    # -- totals, without computing a score -------------------------------------------------------
    @cached_property
    def genuine_per_class(self) -> Int64s:
        """int64 [classes]: unordered within-class pairs, or query x reference pairs of the class."""
        return self.count_genuine(*self._all_items)

    @cached_property
    def impostor_per_class(self) -> Int64s:
        """int64 [classes]: pairs with exactly one end in the class."""
        return self.count_impostors(*self._all_items)

    @property
    def _all_items(self) -> tuple[Bools, Bools]:
        return np.ones(len(self.a), dtype=bool), np.ones(len(self.b), dtype=bool)

    def count_genuine(self, in_a: Bools, in_b: Bools) -> Int64s:
        """int64 [classes]: genuine pairs among the chosen items of both sides (equal when symmetric)."""
        counts = self._count_within(*self._count_items(in_a, in_b))
        for sign, groups_a, groups_b in self._joined_groups:
            codes, _, cell_a, cell_b = self._count_cells(groups_a, groups_b, in_a, in_b)
            excluded = np.bincount(codes, self._count_within(cell_a, cell_b), minlength=len(self.classes))
            counts = counts - sign * excluded.astype(np.int64)
        return np.asarray(counts)

    def count_impostors(self, in_a: Bools, in_b: Bools) -> Int64s:
        """int64 [classes]: pairs with exactly one end in the class, among the chosen items."""
        a, b = self._count_items(in_a, in_b)
        totals = a * (b.sum() - b)
        if not self.symmetric:
            totals = totals + b * (a.sum() - a)
        for sign, groups_a, groups_b in self._joined_groups:
            codes, groups, cell_a, cell_b = self._count_cells(groups_a, groups_b, in_a, in_b)
            of_a, of_b = (np.bincount(groups, cells).astype(np.int64) for cells in (cell_a, cell_b))
            excluded = cell_a * (of_b[groups] - cell_b)
            if not self.symmetric:
                excluded = excluded + cell_b * (of_a[groups] - cell_a)
            totals = totals - sign * np.bincount(codes, excluded, minlength=len(totals))
        return np.asarray(totals.astype(np.int64))

    def _count_items(self, in_a: Bools, in_b: Bools) -> tuple[Int64s, Int64s]:
        """Items of each class on either side."""
        n = len(self.classes)
        return np.bincount(self.a.codes[in_a], minlength=n), np.bincount(self.b.codes[in_b], minlength=n)

    def _count_within(self, a: Int64s, b: Int64s) -> Int64s:
        return np.asarray((a * (a - 1) // 2 if self.symmetric else a * b).astype(np.int64))

    @cached_property
    def _joined_groups(self) -> list[tuple[int, Int64s, Int64s]]:
        """Signs and groups of either side, int64 [n], for every choice of columns: pairs that share any
        column's group are those of each column, less those of each two, and so on."""
        if self.a.groups is None or self.b.groups is None:
            return []
        columns, n_a = range(self.a.groups.shape[1]), len(self.a)
        both = np.concatenate([self.a.groups, self.b.groups])
        joined = []
        for size in range(1, len(columns) + 1):
            for chosen in combinations(columns, size):
                codes = np.unique(both[:, list(chosen)], axis=0, return_inverse=True)[1].reshape(-1)
                joined.append(((-1) ** (size + 1), codes[:n_a], codes[n_a:]))
        return joined

    def _count_cells(
        self, groups_a: Int64s, groups_b: Int64s, in_a: Bools, in_b: Bools
    ) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """Class, group, and items of either side, of every combination of class and group that occurs."""
        n_groups = int(max(groups_a.max(), groups_b.max())) + 1
        keys_a = (self.a.codes * n_groups + groups_a)[in_a]
        keys_b = (self.b.codes * n_groups + groups_b)[in_b]
        keys = np.unique(np.concatenate([keys_a, keys_b]))
        a, b = (np.bincount(np.searchsorted(keys, part), minlength=len(keys)) for part in (keys_a, keys_b))
        return keys // n_groups, keys % n_groups, a, b

    @property
    def has_groups(self) -> bool:
        """Whether pairs are excluded."""
        return self.a.groups is not None

    def is_within_group(self, rows: slice | Int64s, columns: slice) -> Bools:
        """bool [rows, columns]: which pairs are excluded."""
        if self.a.groups is None or self.b.groups is None:
            return np.zeros((1, 1), dtype=bool)
        of_rows, of_columns = self.a.groups[rows], self.b.groups[columns]
        shares = [of_rows[:, k, None] == of_columns[None, :, k] for k in range(of_rows.shape[1])]
        return np.asarray(np.logical_or.reduce(shares))

    def mask_left_out(self, rows: slice) -> Bools:
        """bool [rows, len(b)]: excluded pairs, and of a set against itself each item with itself."""
        left_out = np.zeros((rows.stop - rows.start, len(self.b)), dtype=bool)
        if self.symmetric:
            left_out[np.arange(len(left_out)), np.arange(rows.start, rows.stop)] = True
        if self.has_groups:
            left_out |= self.is_within_group(rows, slice(0, len(self.b)))
        return left_out

    @cached_property
    def n_genuine(self) -> int:
        """Number of genuine pairs."""
        return int(self.genuine_per_class.sum())

    @cached_property
    def n_impostor(self) -> int:
        """Number of impostor pairs; each belongs to two classes."""
        return int(self.impostor_per_class.sum()) // 2

    @property
    def class_sizes(self) -> Int64s:
        """int64 [classes]: items of both sides."""
        return self.a.sizes if self.symmetric else self.a.sizes + self.b.sizes

    # -- parts of the pairs ------------------------------------------------------------------------
    def sample(self, n: int) -> Pairs:
        """The pairs among at most ``n`` items of each side, drawn at random, always the same ones."""
        draw = np.random.default_rng(0)
        a = self.a.select(np.sort(draw.permutation(len(self.a))[:n]))
        b = a if self.symmetric else self.b.select(np.sort(draw.permutation(len(self.b))[:n]))
        return replace(self, a=a, b=b)

    def select_rows(self, rows: Int64s) -> Pairs:
        """The pairs among these rows of ``a``; against a gallery, of these rows with all of ``b``."""
        a = self.a.select(rows)
        return replace(self, a=a, b=a if self.symmetric else self.b)

    def cross_rows(self, rows: slice) -> Pairs:
        """These rows of ``a`` with all of ``b``: every impostor pair of theirs, whichever end comes first."""
        return replace(self, a=self.a.select(np.arange(rows.start, rows.stop)), symmetric=False)

    # -- scores of impostor pairs, in blocks -------------------------------------------------------
    @property
    def exact(self) -> bool:
        """Whether blocks are computed in float64 and rounded, tie for tie as decisions are."""
        return len(self.a) * len(self.b) <= EXACT_PRODUCT

    def score_block(
        self, rows: slice, columns: slice, out: Float32s | None = None, exact: bool | None = None
    ) -> Block:
        """Scores of a rectangle, impostor, genuine and excluded pairs alike."""
        left, right = self.a.vectors[rows], self.b.vectors[columns]
        if self.exact if exact is None else exact:
            similarities = compute_exact_similarities(left, right)
        else:
            shape = (len(left), len(right))
            target = None if out is None else out[: shape[0] * shape[1]].reshape(shape)
            similarities = multiply_rows(left, right, target)
        return Block(rows, columns, self.score_rectangle(similarities, rows, columns), similarities)

    def score_rectangle(self, similarities: Float32s, rows: slice | Int64s, columns: slice) -> Float32s:
        """float32 scores of a rectangle of similarities; the same array where the score is the similarity."""
        if self.scorer.is_similarity:
            return similarities
        scores = self.scorer(
            similarities,
            None if self.a.densities is None else self.a.densities[rows][:, None],
            None if self.b.densities is None else self.b.densities[columns][None, :],
        )
        return np.ascontiguousarray(scores, dtype=np.float32)

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """Rectangles that together hold every impostor pair once."""
        tiles = []
        for first in range(0, len(self.a), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(self.a)))
            left = int(self.a.starts[self.a.codes[first] + 1]) if self.symmetric else 0
            tiles += [
                (rows, slice(column, min(column + BLOCK_COLUMNS, len(self.b))))
                for column in range(left, len(self.b), BLOCK_COLUMNS)
            ]
        return tiles

    def iterate_blocks(self) -> Iterator[Block]:
        """Every impostor pair once, in blocks that are overwritten by the next one."""
        buffer = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, dtype=np.float32)
        for rows, columns in self.tiles:
            yield self.score_block(rows, columns, buffer)

    @cached_property
    def spans(self) -> Int64s:
        """int64 [len(a), 3]: the impostor columns of a row are s[0]:s[1] and s[2]:len(b)."""
        lower, upper = self.b.starts[self.a.codes], self.b.starts[self.a.codes + 1]
        if self.symmetric:
            return np.stack([upper, upper, upper], axis=1)
        return np.stack([np.zeros_like(lower), lower, upper], axis=1)

    def mask_impostors(self, block: Block) -> Bools:
        """bool, the shape of the block: the impostor pairs that this block is there to give."""
        columns = np.arange(block.columns.start, block.columns.stop)
        spans = self.spans[block.rows]
        mask = (columns >= spans[:, :1]) & ((columns < spans[:, 1:2]) | (columns >= spans[:, 2:]))
        return np.asarray(mask & ~self.is_within_group(block.rows, block.columns))

    def build_view(self, block: Block) -> BlockView:
        """A block's scores and which pairs they are, for the compiled loops."""
        groups_a, groups_b = self.a.groups, self.b.groups
        if groups_a is None or groups_b is None:
            groups_a = groups_b = np.zeros((0, 0), dtype=np.int64)
        return BlockView(
            block.scores,
            block.rows.start,
            block.columns.start,
            self.spans,
            self.a.codes,
            self.b.codes,
            groups_a,
            groups_b,
        )

    # -- scores of genuine pairs, class by class ---------------------------------------------------
    def score_class(self, code: int, rows: slice) -> tuple[Float32s, Float32s, Bools]:
        """Scores, similarities and which are pairs, of rows of a class with the class's items in ``b``.

        A set against itself gives both orders of a pair and leaves out an item's pair with itself.
        """
        columns = slice(int(self.b.starts[code]), int(self.b.starts[code + 1]))
        similarities = compute_exact_similarities(self.a.vectors[rows], self.b.vectors[columns])
        is_pair = np.ones(similarities.shape, dtype=bool)
        if self.symmetric:
            is_pair[np.arange(len(is_pair)), np.arange(rows.start, rows.stop) - columns.start] = False
        is_pair &= ~self.is_within_group(rows, columns)
        return self.score_rectangle(similarities, rows, columns), similarities, is_pair

    def iterate_genuine(self) -> Iterable[GenuinePairs]:
        """All genuine pairs with their scores in the order of classes and rows, a bounded number at a time.

        Few enough for one part are kept; more are computed again each time, so that the pairs of a few
        huge classes never lie in memory together.
        """
        return [self._kept_genuine] if self.n_genuine <= PART else self._compute_genuine()

    def _compute_genuine(self) -> Iterator[GenuinePairs]:
        """Few classes make one part together."""
        waiting: list[GenuinePairs] = []
        for code in np.flatnonzero(self.genuine_per_class):
            height = max(1, PART // max(1, int(self.b.sizes[code])))
            for first in range(self.a.starts[code], self.a.starts[code + 1], height):
                rows = slice(int(first), int(min(first + height, self.a.starts[code + 1])))
                strip = self._collect_strip(int(code), rows)
                if sum(map(len, waiting)) + len(strip) > PART and waiting:
                    yield GenuinePairs.concatenate(waiting)
                    waiting = []
                waiting.append(strip)
        if waiting:
            yield GenuinePairs.concatenate(waiting)

    def _collect_strip(self, code: int, rows: slice) -> GenuinePairs:
        scores, similarities, is_pair = self.score_class(code, rows)
        start = int(self.b.starts[code])
        if self.symmetric:
            is_pair = np.triu(is_pair, rows.start - start + 1)  # each pair in one order
        i, j = np.nonzero(is_pair)
        kept = scores[is_pair]
        return GenuinePairs(
            a=(i + rows.start).astype(np.int32),
            b=(j + start).astype(np.int32),
            codes=np.full(len(i), code, dtype=np.int32),
            scores=kept,
            similarities=kept if scores is similarities else similarities[is_pair],
        )

    @cached_property
    def _kept_genuine(self) -> GenuinePairs:
        return GenuinePairs.concatenate(list(self._compute_genuine()))

    def collect_genuine(self) -> GenuinePairs:
        """All genuine pairs at once: 16 bytes a pair for cosine, 20 for another score."""
        return GenuinePairs.concatenate(list(self.iterate_genuine()))


def arrange(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    exclude_same: ExcludeSame = None,
    scorer: Scorer | None = None,
    densities: NDArray[Any] | None = None,
    keep_rows: bool = False,
) -> Pairs:
    """Put items in the order of their classes, ready to be walked pair by pair.

    A query is never compared with an item of the gallery that is the same one, by id or by vector.

    Args:
        exclude_same: what excluded pairs share, see ``evaluation.pairs.exclusions``.
        densities: float [n], one per item in the order of the set, where they are known already; the
            scorer computes them otherwise.
        keep_rows: items of a class keep the order of their rows, see ``order_items``.

    Raises:
        InputError: dimensions differ, or the column is not in the data.
    """
    if gallery is not None and gallery.dimension != items.dimension:
        raise InputError(
            f"The gallery's vectors have {gallery.dimension} numbers, the queries' {items.dimension}."
        )
    sets = [items] if gallery is None else [items, gallery]
    classes: Texts = np.unique(np.concatenate([part.classes for part in sets]))
    groups = read_groups(items, gallery, exclude_same)
    used = CosineScorer() if scorer is None else scorer
    if densities is None:
        densities = _compute_densities(items, used)
    a = order_items(items, classes, densities, groups[0], keep_rows)
    if gallery is None:
        return Pairs(classes, a, a, True, used)
    b = order_items(gallery, classes, _compute_densities(gallery, used), groups[1], keep_rows)
    return Pairs(classes, a, b, False, used)


def _compute_densities(items: EmbeddingSet, scorer: Scorer) -> Float32s | None:
    return None if scorer.is_similarity else scorer.compute_densities(items.vectors)


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
