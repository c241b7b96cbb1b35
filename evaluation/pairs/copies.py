"""Copies: vectors that are one item stored twice, and near copies that the photos of one burst are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from common.array_types import Float32s, Float64s, Int64s, UnitVectors
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.ordered_items import hash_rows
from evaluation.pairs.threads import compute_exact_similarities

SAME = 5e-4  # distance of unit rows that are one vector, stored with 16 bits or more
PROJECTED = 8  # dimensions in which neighbours are looked for; a projection brings no two rows farther apart
NEIGHBOURS = 16  # of a row, that are compared with it
JUMP = 4.0  # times the squared distance, from a burst's last photo to the next of the class
DEEPEST = 64  # neighbours of an item among which its burst ends
ROUNDED = 2e-6  # of the cosine of two rows of length 1
FLOOR = 1e-7  # squared distance that rounding leaves between equal rows
BLOCK_ROWS = 512
FEW = 2_048  # rows whose pairs are all looked at, before a tree is built or even imported


def group_copies(vectors: UnitVectors, distance: float = SAME) -> Int64s:
    """int64 [n]: equal for rows that a chain of steps of at most ``distance`` joins.

    Equal rows are always joined; of the others each is compared with its nearest ``NEIGHBOURS``, of ``FEW``
    with all.
    """
    _, first, codes = np.unique(hash_rows(vectors), return_index=True, return_inverse=True)
    distinct = vectors[first]
    near = _find_near_rows(distinct, distance)
    return join_groups(len(first), [near])[codes.reshape(-1)]


def _find_near_rows(vectors: UnitVectors, distance: float) -> tuple[Int64s, Int64s]:
    """Pairs of rows at most so far apart."""
    if len(vectors) <= FEW:
        i, j = np.nonzero(np.tril(vectors @ vectors.T >= 1 - distance**2 / 2 - ROUNDED, -1))
    else:
        i, j = _find_neighbours(vectors, distance)
    is_near = np.zeros(len(i), dtype=bool)
    for start in range(0, len(i), 16 * BLOCK_ROWS):
        part = slice(start, start + 16 * BLOCK_ROWS)
        steps = vectors[i[part]].astype(np.float64) - vectors[j[part]]
        is_near[part] = np.einsum("ij,ij->i", steps, steps) <= distance**2
    return i[is_near], j[is_near]


def _find_neighbours(vectors: UnitVectors, distance: float) -> tuple[Int64s, Int64s]:
    """Pairs of each row and those of its nearest that may be so near, by a projection."""
    from scipy.spatial import cKDTree  # slow to import

    projected = vectors
    if vectors.shape[1] > PROJECTED:
        draw = np.random.default_rng(0).standard_normal((vectors.shape[1], PROJECTED))
        projected = vectors @ np.linalg.qr(draw)[0].astype(np.float32)
    most = min(NEIGHBOURS + 1, len(vectors))
    bound = distance * 1.001 + 1e-6
    _, columns = cKDTree(projected).query(projected, k=range(1, most + 1), distance_upper_bound=bound)
    i, slot = np.nonzero(columns < len(vectors))
    j = columns[i, slot]
    return i[i != j], j[i != j]


def join_groups(n: int, edges: Sequence[tuple[Int64s, Int64s]]) -> Int64s:
    """int64 [n]: the connected component of each row."""
    i = np.concatenate([part[0] for part in edges])
    j = np.concatenate([part[1] for part in edges])
    if not len(i):
        return np.arange(n)
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def has_own_ids(items: EmbeddingSet) -> bool:
    """Whether ids are names, and not the row numbers that items without ids get."""
    return bool((items.ids != np.arange(len(items)).astype(np.str_)).any())


def group_shared_items(items: EmbeddingSet, gallery: EmbeddingSet) -> tuple[Int64s, Int64s] | None:
    """Groups of queries and gallery items that are one item by id or by vector; None where none is."""
    n, both = len(items), np.concatenate([items.vectors, gallery.vectors])
    copies = group_copies(both)
    if has_own_ids(items) and has_own_ids(gallery):
        names = np.unique(np.concatenate([items.ids, gallery.ids]), return_inverse=True)[1].reshape(-1)
        rows = np.arange(len(both))
        offset = len(both)  # a node for each group of copies, and one for each name
        edges = [(rows, offset + copies), (rows, 2 * offset + names)]
        copies = join_groups(3 * offset, edges)[:offset]
    if not np.isin(copies[:n], copies[n:]).any():
        return None
    return copies[:n], copies[n:]


def group_bursts(vectors: UnitVectors, codes: Int64s) -> Int64s:
    """int64 [n]: equal for items of one class that are near copies of each other, as photos of a burst are.

    Near copies are mutual: each is before the jump in the other's distances (``find_burst_ends``).
    """
    i, j = [], []
    for rows, similarities in _iterate_classes(vectors, codes, len(vectors)):
        order, ends = _sort_partners(similarities)
        near = np.zeros(similarities.shape, dtype=bool)
        np.put_along_axis(near, order, np.arange(order.shape[1]) < ends[:, None], axis=1)
        first, second = np.nonzero(near & near.T)
        i.append(rows[first])
        j.append(rows[second])
    nothing = np.zeros(0, dtype=np.int64)
    return join_groups(len(vectors), [(np.concatenate([nothing, *i]), np.concatenate([nothing, *j]))])


def measure_burst_share(vectors: UnitVectors, codes: Int64s, largest_class: int = 2048) -> float:
    """Fraction of the items with two partners or more that have near copies among them; 0 without such items.

    Classes larger than ``largest_class`` are left out.
    """
    n_near = n = 0
    for _, similarities in _iterate_classes(vectors, codes, largest_class):
        if len(similarities) > 2:
            n_near += int((_sort_partners(similarities)[1] > 0).sum())
            n += len(similarities)
    return n_near / n if n else 0.0


def _iterate_classes(vectors: UnitVectors, codes: Int64s, largest: int) -> Iterator[tuple[Int64s, Float32s]]:
    """Rows and similarities [m, m] of each class of two items or more, and at most ``largest``."""
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1))
    for first, stop in pairwise(edges):
        rows = order[first:stop]
        if 2 <= len(rows) <= largest:
            yield rows, compute_exact_similarities(vectors[rows], vectors[rows])


def _sort_partners(similarities: Float32s) -> tuple[Int64s, Int64s]:
    """Each item's nearest partners, int64 [m, k], and how many of them are near copies, int64 [m]."""
    n = len(similarities)
    squares = np.maximum(2.0 - 2.0 * similarities.astype(np.float64), FLOOR)
    np.fill_diagonal(squares, np.inf)
    most = min(n - 1, DEEPEST + 1)
    order = np.argpartition(squares, most - 1, axis=1)[:, :most]
    order = np.take_along_axis(order, np.argsort(np.take_along_axis(squares, order, 1), axis=1), 1)
    return order, find_burst_ends(np.take_along_axis(squares, order, 1), n - 1)


def find_burst_ends(squares: Float64s, n_partners: int) -> Int64s:
    """int64 [m]: how many of the nearest partners lie before a jump in the squared distances.

    The jump is the largest step from one partner to the next, by a factor of ``JUMP`` at least, within the
    nearer half of the partners. In a class that fills d dimensions without bursts the k-th step is as large
    with a chance of ``JUMP ** (-k * d / 2)``.

    Args:
        squares: float64 [m, k], ascending, of the nearest k of ``n_partners``.
    """
    steps = squares[:, 1:] / squares[:, :-1]
    steps = steps[:, : n_partners // 2]
    if not steps.shape[1]:
        return np.zeros(len(squares), dtype=np.int64)
    largest = steps.argmax(axis=1)
    is_jump = steps[np.arange(len(steps)), largest] >= JUMP
    return np.where(is_jump, largest + 1, 0).astype(np.int64)
