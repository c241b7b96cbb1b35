"""Groups that hold several classes, taken apart where their cores are further apart than they are wide.

A threshold that joins the classes of wide clusters also joins others that lie closely together. What tells
the two apart is not how alike two parts of a group are, but how much less alike than each is in itself. It
is no proof: a very wide class may fall into two or three parts, of one class each.
"""

from __future__ import annotations

import numpy as np

from common.array_types import Int64s, UnitVectors
from evaluation.grouping.group_vectors import Groups, build_groups, group_vectors, link_clusters

CORE = 3  # items
APART = 0.3  # of the way from how alike the items of a core are down to the threshold
ROWS_AT_ONCE = 1024


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
    rows = np.flatnonzero(cores.of_row >= 0)
    sums = np.zeros((len(cores.sizes), vectors.shape[1]))
    np.add.at(sums, cores.of_row[rows], vectors[rows])
    sizes = cores.sizes.astype(np.float64)
    pairs = sizes * (sizes - 1)
    within = (np.square(sums).sum(axis=1) - sizes).sum() / pairs.sum()
    lowest = within - APART * (within - threshold)
    roots = link_clusters((sums / sizes[:, None]).astype(np.float32), cores.sizes, lowest)
    joined, of_core = np.unique(roots, return_inverse=True)
    if len(joined) < 2:
        return None
    means = np.zeros((len(joined), vectors.shape[1]))
    np.add.at(means, of_core, sums)
    means /= np.bincount(of_core, sizes)[:, None]
    parts = np.where(cores.of_row < 0, -1, of_core[cores.of_row])
    left = np.flatnonzero(parts < 0)
    for start in range(0, len(left), ROWS_AT_ONCE):
        rest = left[start : start + ROWS_AT_ONCE]
        alike = vectors[rest] @ means.T.astype(np.float32)
        parts[rest] = np.where(alike.max(axis=1) >= threshold, alike.argmax(axis=1), -1)
    return np.asarray(parts, dtype=np.int64)
