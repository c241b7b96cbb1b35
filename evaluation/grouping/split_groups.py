"""Groups that hold several classes, taken apart where their cores are further apart than they are wide.

A threshold that joins the classes of wide clusters also joins others that lie closely together. What tells
the two apart is not how alike two parts of a group are, but how much less alike than each is in itself. It
is no proof: a very wide class may fall into two or three parts, of one class each.
"""

from __future__ import annotations

import numpy as np

from common.array_types import Int64s, UnitVectors
from evaluation.grouping.group_vectors import Groups, build_groups, group_vectors

CORE = 3  # items
APART = 0.3  # of the way from how alike the items of a core are down to the threshold


def split_groups(
    vectors: UnitVectors, groups: Groups, threshold: float, strict: float, min_size: int
) -> Groups:
    """The groups of ``group_vectors`` at ``threshold``, taken apart where they have cores that are apart.

    The cores of a group are the groups of at least three of its rows at the threshold ``strict``. They are
    joined by average linkage, down to a similarity 0.3 of the way from the mean within the cores to
    ``threshold``. Every other row goes with the cores that it is most alike to on average, if that reaches
    ``threshold``.

    Args:
        vectors: float32 [n, d], unit rows.
        strict: a higher threshold.
        min_size: smaller groups are noise.
    """
    of_row, following = groups.of_row.copy(), len(groups.sizes)
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(len(groups.sizes) + 1))
    for group in np.flatnonzero(groups.sizes >= 2 * CORE).tolist():
        rows = order[starts[group] : starts[group + 1]]
        parts = _split(vectors[rows], threshold, strict)
        if parts is not None:
            of_row[rows] = np.where(parts < 0, -1, following + parts)
            following += int(parts.max()) + 1
    return build_groups(vectors, of_row, min_size)


def _split(vectors: UnitVectors, threshold: float, strict: float) -> Int64s | None:
    """The part of each row of a group, int64 [n], -1 for none; None where the group is one."""
    cores = group_vectors(vectors, strict, min_size=CORE)
    if len(cores.sizes) < 2:
        return None
    sums = np.stack([vectors[cores.of_row == core].sum(axis=0) for core in range(len(cores.sizes))])
    sums, sizes = sums.astype(np.float64), cores.sizes.astype(np.float64)
    pairs = sizes * (sizes - 1)
    within = (np.square(sums).sum(axis=1) - sizes).sum() / pairs.sum()
    lowest = within - APART * (within - threshold)
    of_core = np.arange(len(sizes))
    while len(sizes) > 1:
        between = sums @ sums.T / np.outer(sizes, sizes)
        np.fill_diagonal(between, -np.inf)
        a, b = sorted(divmod(int(between.argmax()), len(sizes)))
        if between[a, b] < lowest:
            break
        sums[a], sizes[a] = sums[a] + sums[b], sizes[a] + sizes[b]
        sums, sizes = np.delete(sums, b, axis=0), np.delete(sizes, b)
        of_core = np.where(of_core == b, a, of_core - (of_core > b))
    if len(sizes) < 2:
        return None
    parts = np.where(cores.of_row < 0, -1, of_core[cores.of_row])
    rest = np.flatnonzero(parts < 0)
    alike = vectors[rest] @ sums.T.astype(np.float32) / sizes
    parts[rest] = np.where(alike.max(axis=1) >= threshold, alike.argmax(axis=1), -1)
    return np.asarray(parts, dtype=np.int64)
