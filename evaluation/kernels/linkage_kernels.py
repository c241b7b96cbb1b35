"""Compiled average-linkage agglomeration over a sparse graph of links.

The average similarity of the pairs between two clusters of unit vectors is the product of their sums over
the number of pairs, so that a cluster is a sum and a size, and linkage costs d multiplications a look.
Average linkage is reducible: clusters that are each other's nearest may be merged in any order and give the
one hierarchy (Bruynooghe 1978; Murtagh 1983, nearest-neighbour chains). Cut at a threshold, only links that
reach it matter: an average over a union lies between the averages of its parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.array_types import Bools, Float32s, Int32s, Int64s
from evaluation.kernels.compiled import compiled, kernel


@compiled
def find_root(parents: Int32s, row: int) -> int:
    """The cluster of a row, with the path to it halved."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@kernel(fastmath={"reassoc", "contract"})
def _multiply(a: Float32s, b: Float32s) -> float:
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return float(total)


class Linkage(NamedTuple):
    """Clusters of n rows, each kept at its root, with their links.

    Attributes:
        sums, sizes: float32 [n, d] and int64 [n].
        parents: int32 [n]: a root is its own.
        heads, tails: int32 [n]: the first and last link of each cluster, -1 where there is none.
        targets, following: int32 [links]: a row of the linked cluster, and the next link of the list or -1.
        queue, is_queued: int32 [n], a ring of the clusters that are yet to be looked at, and bool [n].
        cursor: int64 [2]: the ring's first entry and how many there are.
    """

    sums: Float32s
    sizes: Int64s
    parents: Int32s
    heads: Int32s
    tails: Int32s
    targets: Int32s
    following: Int32s
    queue: Int32s
    is_queued: Bools
    cursor: Int64s


@compiled
def add_links(clusters: Int32s, linked: Int32s, state: Linkage) -> int:
    """Add links to the lists of both their ends: int32 [m, k] from m roots to others, -1 where there is none.

    The roots are queued; returns how many links were added.
    """
    filled = 0
    for r in range(len(clusters)):
        for slot in range(linked.shape[1]):
            if linked[r, slot] >= 0:
                _append(clusters[r], linked[r, slot], filled, state)
                _append(linked[r, slot], clusters[r], filled + 1, state)
                filled += 2
        _enqueue(clusters[r], state)
    return filled


@compiled
def _append(owner: int, target: int, link: int, state: Linkage) -> None:
    state.targets[link] = target
    state.following[link] = -1
    if state.heads[owner] < 0:
        state.heads[owner] = link
    else:
        state.following[state.tails[owner]] = link
    state.tails[owner] = link


@compiled
def _enqueue(cluster: int, state: Linkage) -> None:
    if not state.is_queued[cluster]:
        state.is_queued[cluster] = True
        state.queue[(state.cursor[0] + state.cursor[1]) % len(state.queue)] = cluster
        state.cursor[1] += 1


@compiled
def _dequeue(state: Linkage) -> int:
    cluster = state.queue[state.cursor[0]]
    state.cursor[0] = (state.cursor[0] + 1) % len(state.queue)
    state.cursor[1] -= 1
    state.is_queued[cluster] = False
    return int(cluster)


@compiled
def _find_nearest(
    x: int, before: int, threshold: float, stamps: Int32s, stamp: int, state: Linkage
) -> tuple[int, float, float]:
    """The linked cluster with the highest average, or -1; that average, and the average of ``before``.

    Links that lead back, to a cluster met already, or to one below the threshold are dropped.
    """
    nearest, best, of_before = -1, threshold, -np.inf
    previous, link = -1, state.heads[x]
    while link >= 0:
        y = find_root(state.parents, state.targets[link])
        is_kept = False
        if y != x and stamps[y] != stamp:
            stamps[y] = stamp
            pairs = float(state.sizes[x]) * float(state.sizes[y])
            average = _multiply(state.sums[x], state.sums[y]) / pairs
            if average >= threshold:
                is_kept = True
                state.targets[link] = y
                if y == before:
                    of_before = average
                if nearest < 0 or average > best or (average == best and y < nearest):
                    nearest, best = y, average
        after = state.following[link]
        if is_kept:
            previous = link
        elif previous < 0:
            state.heads[x] = after
        else:
            state.following[previous] = after
        link = after
    state.tails[x] = previous
    return nearest, best, of_before


@compiled
def _merge(into: int, gone: int, state: Linkage) -> None:
    for k in range(state.sums.shape[1]):
        state.sums[into, k] += state.sums[gone, k]
    state.sizes[into] += state.sizes[gone]
    state.parents[gone] = into
    if state.heads[gone] >= 0:
        if state.heads[into] < 0:
            state.heads[into] = state.heads[gone]
        else:
            state.following[state.tails[into]] = state.heads[gone]
        state.tails[into] = state.tails[gone]
        state.heads[gone] = -1


@compiled
def merge_clusters(threshold: float, absorbing: int, state: Linkage) -> int:
    """Merge the queued clusters along nearest-neighbour chains until no linked pair reaches the threshold.

    A cluster whose nearest one is ``absorbing`` times as large is taken in without asking whether that one
    has a nearer one: its mean hardly moves, and to walk all its links for each item takes quadratic time.
    Returns how many merges there were.
    """
    n = len(state.parents)
    stamps, stamp = np.full(n, -1, dtype=np.int32), 0
    chain, depth_of = np.empty(n, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    merges = 0
    while state.cursor[1] > 0:
        start = _dequeue(state)
        if state.parents[start] != start:
            continue
        chain[0], depth_of[start], depth = start, 0, 1
        while depth > 0:
            x = chain[depth - 1]
            before = chain[depth - 2] if depth > 1 else -1
            nearest, best, of_before = _find_nearest(x, before, threshold, stamps, stamp, state)
            stamp += 1
            if nearest < 0:
                depth -= 1
                depth_of[x] = -1
                continue
            if of_before >= best:
                nearest = before
            if depth_of[nearest] < 0 and state.sizes[x] * absorbing > state.sizes[nearest]:
                chain[depth], depth_of[nearest] = nearest, depth
                depth += 1
                continue
            # a pair, a small cluster taken in, or, where rounding or absorption closed a circle, its ends
            kept = depth - 1 if depth_of[nearest] < 0 else min(depth - 1, depth_of[nearest])
            for position in range(kept, depth):
                depth_of[chain[position]] = -1
                if state.parents[chain[position]] == chain[position]:
                    _enqueue(chain[position], state)
            depth = kept
            if state.sizes[nearest] >= state.sizes[x]:
                _merge(nearest, x, state)
                _enqueue(nearest, state)
            else:
                _merge(x, nearest, state)
            merges += 1
    return merges
