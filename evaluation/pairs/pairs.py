"""All pairs of a labelled set, walked block by block: the one place where pairs are enumerated.

Items are put in order of their class, so the genuine pairs of a row are one run of columns and
need no label comparison, and ``np.add.reduceat`` or ``np.maximum.reduceat`` over ``class_starts``
turns a block of columns into one figure per class. A set against itself is walked once per
unordered pair; queries against a gallery are walked in full.

>>> from embeddings.embedding_set import EmbeddingSet
>>> pairs = arrange(EmbeddingSet.from_arrays([[1, 0], [1, 0.1], [0, 1]], ["x", "x", "y"]))
>>> pairs.n_genuine, pairs.n_impostor
(1, 2)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, Int32s, Int64s, Texts
from common.errors import InputError
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.kernels.block_view import Place
from evaluation.pairs.ordered_items import Side, genuine_totals, groups_of, impostor_totals, side_of
from evaluation.pairs.threads import product

BLOCK_ROWS = 1024
BLOCK_COLUMNS = 4096
EXACT_PRODUCT = 2**26  # pairs up to which blocks are computed in float64 and rounded, as decisions are

__all__ = ["Block", "GenuinePairs", "Pairs", "Side", "arrange"]


@dataclass(frozen=True)
class Block:
    """Scores and similarities float32 [m, n] of ``a`` rows against ``b`` columns, one array for cosine.

    For a set against itself only the columns beyond a row's own class are pairs of that block
    (``Pairs.impostors`` masks them)."""

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
    a: Side
    b: Side
    symmetric: bool
    scorer: Scorer

    # -- totals, without computing a score -------------------------------------------------------
    @cached_property
    def genuine_per_class(self) -> Int64s:
        """int64 [classes]: unordered within-class pairs, or query x reference pairs of the class."""
        return self.genuine_totals(*self._everyone)

    @cached_property
    def impostor_per_class(self) -> Int64s:
        """int64 [classes]: pairs with exactly one end in the class."""
        return self.impostor_totals(*self._everyone)

    def genuine_totals(self, in_a: Bools, in_b: Bools) -> Int64s:
        """int64 [classes]: genuine pairs among the chosen items of both sides (equal when symmetric)."""
        return genuine_totals(self.a, self.b, self.symmetric, in_a, in_b)

    def impostor_totals(self, in_a: Bools, in_b: Bools) -> Int64s:
        """int64 [classes]: pairs with exactly one end in the class, among the chosen items."""
        return impostor_totals(self.a, self.b, self.symmetric, in_a, in_b)

    @property
    def _everyone(self) -> tuple[Bools, Bools]:
        return np.ones(len(self.a), dtype=bool), np.ones(len(self.b), dtype=bool)

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

    # -- scores -----------------------------------------------------------------------------------
    @property
    def exact(self) -> bool:
        """Whether blocks are computed in float64 and rounded, tie for tie as decisions are."""
        return len(self.a) * len(self.b) <= EXACT_PRODUCT

    def block(
        self,
        rows: slice,
        columns: slice,
        out: Float32s | None = None,
        exact: bool | None = None,
    ) -> Block:
        """Scores of a rectangle, impostor, genuine and excluded pairs alike."""
        left, right = self.a.vectors[rows], self.b.vectors[columns]
        if self.exact if exact is None else exact:
            products = product(left.astype(np.float64), right.astype(np.float64))
            similarities = np.clip(products, -1.0, 1.0).astype(np.float32)
        else:
            shape = (len(left), len(right))
            target = None if out is None else out[: shape[0] * shape[1]].reshape(shape)
            similarities = product(left, right, target)
        return Block(rows, columns, self.score(similarities, rows, columns), similarities)

    def score(self, similarities: Float32s, rows: slice, columns: slice) -> Float32s:
        """Scores of a rectangle of similarities; the same array for cosine."""
        if isinstance(self.scorer, CosineScorer):
            return similarities
        a, b = self.a.densities, self.b.densities
        scores = self.scorer(
            similarities,
            None if a is None else a[rows][:, None],
            None if b is None else b[columns][None, :],
        )
        return np.ascontiguousarray(scores, dtype=np.float32)

    def sample(self, n: int) -> Pairs:
        """The pairs among at most ``n`` items of each side, drawn at random, always the same ones."""
        draw = np.random.default_rng(0)
        a = self.a.some(np.sort(draw.permutation(len(self.a))[:n]))
        b = a if self.symmetric else self.b.some(np.sort(draw.permutation(len(self.b))[:n]))
        return Pairs(self.classes, a, b, self.symmetric, self.scorer)

    def within(self, rows: Int64s) -> Pairs:
        """The pairs among these rows of ``a``; against a gallery, of these rows with all of ``b``."""
        a = self.a.some(rows)
        return Pairs(self.classes, a, a if self.symmetric else self.b, self.symmetric, self.scorer)

    def against(self, rows: slice) -> Pairs:
        """These rows of ``a`` with all of ``b``: every impostor pair of theirs, whichever end comes first."""
        chosen = self.a.some(np.arange(rows.start, rows.stop))
        return Pairs(self.classes, chosen, self.b, False, self.scorer)

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """Rectangles that together hold every impostor pair once."""
        found = []
        for first in range(0, len(self.a), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(self.a)))
            left = int(self.a.starts[self.a.codes[first] + 1]) if self.symmetric else 0
            found += [
                (rows, slice(column, min(column + BLOCK_COLUMNS, len(self.b))))
                for column in range(left, len(self.b), BLOCK_COLUMNS)
            ]
        return found

    def blocks(self) -> Iterator[Block]:
        """Every impostor pair once, in blocks that are overwritten by the next one."""
        buffer = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, dtype=np.float32)
        for rows, columns in self.tiles:
            yield self.block(rows, columns, buffer)

    @cached_property
    def spans(self) -> Int64s:
        """int64 [len(a), 3]: the impostor columns of a row are s[0]:s[1] and s[2]:len(b)."""
        lower, upper = self.b.starts[self.a.codes], self.b.starts[self.a.codes + 1]
        if self.symmetric:
            return np.stack([upper, upper, upper], axis=1)
        return np.stack([np.zeros_like(lower), lower, upper], axis=1)

    def impostors(self, block: Block) -> Bools:
        """bool, the shape of the block: the impostor pairs that this block is there to give."""
        columns = np.arange(block.columns.start, block.columns.stop)
        spans = self.spans[block.rows]
        mask = (columns >= spans[:, :1]) & ((columns < spans[:, 1:2]) | (columns >= spans[:, 2:]))
        if self.a.groups is not None and self.b.groups is not None:
            mask &= self.a.groups[block.rows][:, None] != self.b.groups[block.columns][None, :]
        return mask

    def genuine_parts(self) -> Iterable[GenuinePairs]:
        """All genuine pairs with their scores, a bounded number at a time.

        Few enough for one part are kept; more are computed anew each time, so that the pairs of a few
        huge classes never lie in memory together.
        """
        return [self._kept_genuine] if self.n_genuine <= PART else genuine_parts(self)

    @cached_property
    def _kept_genuine(self) -> GenuinePairs:
        return GenuinePairs.joined(list(genuine_parts(self)))

    def genuine(self) -> GenuinePairs:
        """All genuine pairs at once: 16 bytes a pair for cosine, 20 for another score."""
        return GenuinePairs.joined(list(self.genuine_parts()))

    def place(self, block: Block) -> Place:
        """A block's scores and which pairs they are, for the compiled loops."""
        groups_a, groups_b = self.a.groups, self.b.groups
        if groups_a is None or groups_b is None:
            groups_a = groups_b = np.zeros(0, dtype=np.int64)
        return Place(
            block.scores,
            block.rows.start,
            block.columns.start,
            self.spans,
            self.a.codes,
            self.b.codes,
            groups_a,
            groups_b,
        )


def arrange(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    exclude_same: str | None = None,
    scorer: Scorer | None = None,
    densities: NDArray[Any] | None = None,
    gallery_densities: NDArray[Any] | None = None,
) -> Pairs:
    """Put items in the order of their classes, ready to be walked pair by pair.

    Args:
        items: the set, or the queries when a gallery is given.
        gallery: references; every query is paired with every reference.
        exclude_same: a metadata column; pairs that share its value are left out.
        scorer: score of a pair; the similarity itself unless given.
        densities, gallery_densities: float [n], one per item in the order of the set, where they are
            known already; the scorer is asked for them otherwise.

    Raises:
        InputError: dimensions differ, or the column is not in the data.
    """
    if gallery is not None and gallery.dimension != items.dimension:
        raise InputError(
            f"The gallery's vectors have {gallery.dimension} numbers, the queries' {items.dimension}."
        )
    sets = [items] if gallery is None else [items, gallery]
    labels = np.concatenate([part.classes for part in sets])
    classes: Texts = np.unique(labels)
    groups = groups_of(sets, exclude_same)
    used = CosineScorer() if scorer is None else scorer
    a = side_of(items, classes, _densities(items, used, densities), groups[0])
    if gallery is None:
        return Pairs(classes, a, a, True, used)
    b = side_of(gallery, classes, _densities(gallery, used, gallery_densities), groups[1])
    return Pairs(classes, a, b, False, used)


def _densities(items: EmbeddingSet, scorer: Scorer, known: NDArray[Any] | None) -> NDArray[Any] | None:
    if known is not None or isinstance(scorer, CosineScorer):
        return known
    return scorer.densities(items.vectors)


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


def class_scores(pairs: Pairs, code: int, rows: slice) -> tuple[Float32s, Float32s, Bools]:
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
