"""Groups of unlabelled vectors: average linkage at a calibrated pair threshold.

Two clusters are merged while the *average* similarity of the pairs between them reaches the threshold, the
nearest first. Items are linked to whole groups and not to their nearest member, so that no chain of
lookalikes joins two of them. And an average of pairs is compared with a threshold of pairs: the centre of
many noisy vectors is nearer to each of them than they are to each other, which a threshold on the cosine of
centres would have to be corrected for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.array_types import Float32s, Int32s, Int64s, UnitVectors
from common.progress import Track, silent
from embeddings.embedding_set import normalise_rows
from evaluation.kernels.linkage_kernels import Linkage, add_links, find_root, merge_clusters
from evaluation.pairs.neighbours import find_neighbours
from evaluation.pairs.ordered_items import hash_rows

LINKS = 32  # nearest rows of each row that are linked to it
ABSORBING = 64  # times as large as a cluster, from which a group takes it in at once
ROUNDING = 2e-6  # of float32 products: links a little below the threshold are looked at once more
MOST_ROUNDS = 8  # of links between clusters whose rows have more neighbours than LINKS


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of vectors, largest first.

    Attributes:
        of_row: int64 [n]: the group of each row, -1 for noise, which is in none.
        centres: float32 [groups, d], unit rows: the direction of each group's mean.
        sizes: int64 [groups].
    """

    of_row: Int64s
    centres: UnitVectors
    sizes: Int64s


def group_vectors(
    vectors: UnitVectors, threshold: float, *, min_size: int = 2, progress: Track | None = None
) -> Groups:
    """Group rows by average linkage, cut at ``threshold``.

    The same rows in another order give the same groups, but for ties of similarities; the groups are those of
    exact average linkage where no row has more than 32 others above the threshold, and approximate in denser
    parts. Takes n² d / 2 multiplications and memory for n rows, never for their pairs.

    Args:
        vectors: float32 [n, d], unit rows.
        threshold: a similarity. Pairs at FAR p make p n false links for each of n rows: the larger the pool,
            the stricter it should be.
        min_size: smaller groups are noise.
        progress: shows the steps.
    """
    if not len(vectors):
        return Groups(np.zeros(0, dtype=np.int64), vectors[:0], np.zeros(0, dtype=np.int64))
    # in an order that vectors alone decide, and equal vectors as one
    _, first, row_of, counts = np.unique(
        hash_rows(vectors), return_index=True, return_inverse=True, return_counts=True
    )
    roots = link_clusters(vectors[first], counts.astype(np.int64), threshold, progress or silent)
    codes = np.unique(roots, return_inverse=True)[1].reshape(-1)[row_of.reshape(-1)]
    return build_groups(vectors, codes, min_size)


def build_groups(vectors: UnitVectors, codes: Int64s, min_size: int) -> Groups:
    """The groups of rows by code, int64 [n]; rows of a negative one are noise, and so are small groups."""
    sizes = np.bincount(codes[codes >= 0]) if (codes >= 0).any() else np.zeros(0, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(1, min_size)]
    number = np.full(len(sizes) + 1, -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    of_row = number[codes]  # the last is that of noise
    return Groups(of_row, _compute_centres(vectors, of_row, len(order)), sizes[order].astype(np.int64))


def link_clusters(means: Float32s, counts: Int64s, threshold: float, track: Track = silent) -> Int32s:
    """Join clusters by average linkage; int32 [n]: the root of what each of n clusters is part of then.

    Args:
        means: float32 [n, d], of the unit rows of each. counts: int64 [n], how many these are.
    """
    n = len(means)
    roots = np.arange(n, dtype=np.int32)
    sums, sizes = means * counts[:, None].astype(np.float32), counts.copy()
    is_truncated = np.ones(n, dtype=bool)
    for number in range(MOST_ROUNDS):
        # later rounds: clusters that may have a partner beyond the links of their rows
        chosen = np.flatnonzero(is_truncated & (roots == np.arange(n))).astype(np.int32)
        if len(chosen) < 2:
            break
        centres = (sums[chosen] / sizes[chosen, None]).astype(np.float32)
        name = "neighbours" if number == 0 else "groups"
        found = find_neighbours(centres, LINKS, floor=threshold - ROUNDING, track=track, name=name)
        linked = np.where(found.rows >= 0, chosen[found.rows], np.int32(-1))
        state = _start_linkage(sums, sizes, roots, int((linked >= 0).sum()))
        add_links(chosen, linked, state)
        merges = merge_clusters(threshold, ABSORBING, state)
        is_full = np.zeros(n, dtype=bool)
        is_full[chosen[found.rows[:, -1] >= 0]] = True
        roots = np.array([find_root(state.parents, row) for row in range(n)], dtype=np.int32)
        is_truncated = np.zeros(n, dtype=bool)
        is_truncated[roots[is_full]] = True
        if not merges:
            break
    return roots


def _start_linkage(sums: Float32s, sizes: Int64s, roots: Int32s, n_links: int) -> Linkage:
    """Clusters without links; ``sums``, ``sizes`` and ``roots`` are changed by what merges them."""
    n = len(roots)
    heads, tails = np.full((2, n), -1, dtype=np.int32)
    targets, following = np.empty((2, 2 * n_links), dtype=np.int32)
    return Linkage(
        sums=sums,
        sizes=sizes,
        parents=roots,
        heads=heads,
        tails=tails,
        targets=targets,
        following=following,
        queue=np.empty(n, dtype=np.int32),
        is_queued=np.zeros(n, dtype=bool),
        cursor=np.zeros(2, dtype=np.int64),
    )


def _compute_centres(vectors: UnitVectors, of_row: Int64s, n_groups: int) -> UnitVectors:
    """float32 [groups, d], unit rows: the directions of the groups' means."""
    if not n_groups:
        return vectors[:0]
    rows = np.flatnonzero(of_row >= 0)
    rows = rows[np.argsort(of_row[rows], kind="stable")]
    starts = np.searchsorted(of_row[rows], np.arange(n_groups))
    sums = np.add.reduceat(vectors[rows].astype(np.float64), starts, axis=0)
    return normalise_rows(sums, "groups")
