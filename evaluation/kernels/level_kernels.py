"""Compiled loops over kept pairs, by the thresholds they reach: class counts and random halvings.

The *level* of a pair is how many of the ascending thresholds its score reaches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Float64s, Int64s
from evaluation.kernels.compiled import compiled
from evaluation.kernels.scalar_kernels import compute_utility, find_bin


class LevelSteps(NamedTuple):
    """Thresholds, and a first guess of a score's level from its bin.

    Attributes:
        ascending: float32 [k].
        scale, base: of the bins.
        first: int64 [bins]: the number of thresholds at or below the lower edge of the bin.
    """

    ascending: Float32s
    scale: np.float32
    base: np.float32
    first: Int64s


@compiled
def find_level(score: np.float32, steps: LevelSteps) -> int:
    """Number of thresholds that the score reaches."""
    last = np.float32(len(steps.first) - 1)
    level = steps.first[find_bin(score, steps.scale, steps.base, last)]
    while level < len(steps.ascending) and steps.ascending[level] <= score:
        level += 1
    return int(level)


@compiled
def count_levels(scores: Float32s, steps: LevelSteps, sizes: Int64s) -> None:
    """Add each score to ``sizes`` int64 [k + 1], at its level."""
    for s in scores:
        sizes[find_level(s, steps)] += 1


@compiled
def sort_pairs_by_level(
    a: NDArray[Any],
    b: NDArray[Any],
    scores: Float32s,
    steps: LevelSteps,
    codes_a: Int64s,
    codes_b: Int64s,
    cursor: Int64s,
    sorted_a: NDArray[Any],
    sorted_b: NDArray[Any],
    counts: Int64s,
) -> None:
    """Write pairs by level into ``sorted_*`` and count them for both of their classes.

    ``cursor[level]`` is where the next pair of a level goes; level 0 is dropped.
    """
    for p in range(len(scores)):
        level = find_level(scores[p], steps)
        if level > 0:
            position = cursor[level]
            cursor[level] += 1
            sorted_a[position] = a[p]
            sorted_b[position] = b[p]
            counts[codes_a[a[p]], level] += 1
            counts[codes_b[b[p]], level] += 1


@compiled
def draw_halves(starts: Int64s, seed: int, lanes: int, half: NDArray[np.uint8]) -> None:
    """Random halvings of the items of each class, one per lane: 1 in the first half, 0 in the second.

    Of an odd number of items the spare one goes to either half by the toss of a coin.
    """
    np.random.seed(seed)  # noqa: NPY002 (inside a compiled loop this is the compiler's own generator)
    for lane in range(lanes):
        for c in range(len(starts) - 1):
            first, n = starts[c], starts[c + 1] - starts[c]
            order = np.random.permutation(n)  # noqa: NPY002
            cut = n // 2
            if n % 2 == 1 and np.random.random() < 0.5:  # noqa: NPY002
                cut += 1
            for k in range(n):
                half[first + order[k], lane] = 1 if k < cut else 0


@compiled
def add_halved_variances(
    impostor_a: NDArray[Any],
    impostor_b: NDArray[Any],
    impostor_starts: Int64s,
    genuine_a: NDArray[Any],
    genuine_b: NDArray[Any],
    genuine_starts: Int64s,
    codes_a: Int64s,
    codes_b: Int64s,
    halves_a: NDArray[np.uint8],
    halves_b: NDArray[np.uint8],
    genuine_totals: Int64s,
    impostor_totals: Int64s,
    chosen: Int64s,
    grid_of: Int64s,
    c: float,
    variances: Float64s,
    by_class: Float64s,
    weights: Float64s,
) -> None:
    """Cross-product variance of class utilities between two halves, for a batch of halvings.

    Pairs are sorted by level: those of level k + 1 are accepted from threshold k downwards.
    ``halves_*`` uint8 [n, 2 L]: lane l says whether an item is in the first half of halving l, lane
    L + l whether it is in the second; ``*_totals`` int64 [classes, 2 L]. ``chosen`` are the classes
    that count, ``grid_of[k]`` the grid that threshold k belongs to. Adds to ``variances``
    [grids, L], to ``by_class`` [grids, chosen] each class's product of deviations, and to
    ``weights`` [grids, chosen] in how many terms it took part.
    """
    lanes = halves_a.shape[1]
    L = lanes // 2
    n_classes = len(genuine_totals)
    impostors = np.zeros((n_classes, lanes), dtype=np.int32)
    genuine = np.zeros((n_classes, lanes), dtype=np.int32)
    u = np.empty((len(chosen), lanes))
    sums = np.empty(lanes)
    members = np.empty(L)
    valid = np.ones((len(chosen), L), dtype=np.bool_)
    for t in range(len(chosen)):
        for lane in range(L):
            for side in (lane, lane + L):
                if genuine_totals[chosen[t], side] == 0 or impostor_totals[chosen[t], side] == 0:
                    valid[t, lane] = False
    for k in range(len(grid_of) - 1, -1, -1):
        for p in range(impostor_starts[k + 1], impostor_starts[k + 2]):
            x, y = halves_a[impostor_a[p]], halves_b[impostor_b[p]]
            left, right = impostors[codes_a[impostor_a[p]]], impostors[codes_b[impostor_b[p]]]
            for lane in range(lanes):
                both = x[lane] & y[lane]
                left[lane] += both
                right[lane] += both
        for p in range(genuine_starts[k + 1], genuine_starts[k + 2]):
            x, y = halves_a[genuine_a[p]], halves_b[genuine_b[p]]
            own = genuine[codes_a[genuine_a[p]]]
            for lane in range(lanes):
                own[lane] += x[lane] & y[lane]
        sums[:] = 0.0
        members[:] = 0.0
        for t in range(len(chosen)):
            i = chosen[t]
            for lane in range(lanes):
                u[t, lane] = 0.0
                if not valid[t, lane % L]:
                    continue
                specificity = 1.0 - impostors[i, lane] / impostor_totals[i, lane]
                u[t, lane] = compute_utility(specificity, genuine[i, lane] / genuine_totals[i, lane], c)
                sums[lane] += u[t, lane]
                if lane < L:
                    members[lane] += 1.0
        g = grid_of[k]
        for t in range(len(chosen)):
            for lane in range(L):
                if valid[t, lane]:
                    product = (u[t, lane] - sums[lane] / members[lane]) * (
                        u[t, lane + L] - sums[lane + L] / members[lane]
                    )
                    variances[g, lane] += product / members[lane]
                    by_class[g, t] += product
                    weights[g, t] += 1.0
