"""One walk over all pairs that keeps what every figure of a report needs.

What is kept is small: a histogram of the impostor scores in about a million bins with exact edges,
the pairs above a floor a little below the lowest threshold of the calibration range, and per query its
best impostor and how many impostors come ahead of each of its partners. Order statistics are exact:
the bin is known from the histogram, and the scores within the bin are looked up among the kept pairs
or, below the floor, in another walk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Bools, Float32s, Int64s
from common.progress import Track, silent
from decision.scorers import count_rejected
from evaluation.kernels.impostor_kernels import collect_bins, scan_rows, sum_gaussian_kernels
from evaluation.pairs.pairs import BLOCK_COLUMNS, BLOCK_ROWS, Pairs
from evaluation.pairs.ranks import QueryRanks, Ranks, compute_ranks, has_few_partners
from evaluation.pairs.threads import run_in_threads, split_rows
from evaluation.pairs.top_impostors import TopImpostors

SAMPLE = 3072  # items of each side in the sample that bins and floor are estimated from
EVERY = 4  # of these, the rows whose scores are sorted for it
MERGE_EVERY = 256  # tiles after which 32-bit bin counts go into 64-bit ones, before they can overflow
DEEPEST_FAR = 0.1  # TAR is wanted up to this FAR, whatever the calibration range


@dataclass(eq=False)
class Sweep:
    """The result of one walk over all pairs.

    Attributes:
        histogram, genuine_histogram: int64 [bins.count]: impostor and genuine scores per bin.
        floor: the lower edge of a bin; ``top`` holds every impostor pair that reaches it.
        kernel_sum: sum of exp(-2 |x - y|^2) over the impostor pairs.
    """

    pairs: Pairs
    bins: ScoreBins
    histogram: Int64s
    genuine_histogram: Int64s
    floor: np.float32
    top: TopImpostors
    ranks: Ranks | None
    kernel_sum: float | None

    @cached_property
    def impostors_at_or_above(self) -> Int64s:
        """int64 [bins.count + 1]: impostor scores in bin b or above."""
        return _sum_from_above(self.histogram)

    @cached_property
    def genuine_at_or_above(self) -> Int64s:
        """int64 [bins.count + 1]: genuine scores in bin b or above."""
        return _sum_from_above(self.genuine_histogram)

    def count_accepted(self, thresholds: Float32s, at_or_above: Int64s, inside: Float32s) -> Int64s:
        """int64: how many scores are at or above each threshold.

        Args:
            thresholds: float32 [k].
            at_or_above: ``impostors_at_or_above`` or ``genuine_at_or_above``.
            inside: ascending, all scores of that kind in the thresholds' own bins.
        """
        bins = self.bins.find(thresholds)
        through = np.searchsorted(self.bins.find(inside), bins, side="right")
        below = count_rejected(inside, thresholds)
        return np.asarray(at_or_above[bins + 1] + through - below)

    def find_impostor_scores(self, ranks: Int64s) -> Float32s:
        """float32, the impostor scores of given ranks; rank 1 is the highest score. Exact."""
        bins = self.find_bin_of_rank(ranks)
        scores = self.collect_impostor_scores(np.unique(bins))[::-1]
        # descending scores: the first of a bin comes after all scores of higher wanted bins
        first = np.searchsorted(-self.bins.find(scores), -bins, side="left")
        return np.asarray(scores[first + ranks - 1 - self.impostors_at_or_above[bins + 1]])

    def find_refused_scores(self, fars: Sequence[str]) -> Float32s:
        """float32: the highest impostor score that must be refused to keep each pooled FAR."""
        n = self.pairs.n_impostor
        ranks = [min(n, int(Fraction(far) * n) + 1) for far in fars]
        return self.find_impostor_scores(np.array(ranks, dtype=np.int64))

    def find_bin_of_rank(self, ranks: Int64s) -> Int64s:
        """int64: the bin that holds the impostor score of each rank."""
        return np.asarray(
            self.bins.count - np.searchsorted(self.impostors_at_or_above[::-1], ranks, side="left")
        ).astype(np.int64)

    def collect_impostor_scores(self, bins: Int64s) -> Float32s:
        """float32, ascending: every impostor score of the given bins."""
        wanted = self._mark(bins)
        if len(bins) == 0 or self.bins.compute_edges(bins.min()) >= self.floor:
            parts = [scores[wanted[self.bins.find(scores)]] for _, _, scores in self.top.chunks]
        else:
            parts = []
            collected = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, dtype=np.float32)
            for block in self.pairs.iterate_blocks():
                view, rows = self.pairs.build_view(block), np.arange(len(block.scores))
                n = collect_bins(view, rows, self.bins.scale, self.bins.lowest, wanted, collected)
                parts.append(collected[:n].copy())
        return np.sort(np.concatenate([np.zeros(0, dtype=np.float32), *parts]))

    def collect_genuine_scores(self, bins: Int64s) -> Float32s:
        """float32, ascending: every genuine score of the given bins; 4 bytes each."""
        wanted = self._mark(bins)
        parts = (part.scores[wanted[self.bins.find(part.scores)]] for part in self.pairs.iterate_genuine())
        return np.sort(np.concatenate([np.zeros(0, dtype=np.float32), *parts]))

    def _mark(self, bins: Int64s) -> Bools:
        wanted = np.zeros(self.bins.count, dtype=bool)
        wanted[bins] = True
        return wanted


def sweep_pairs(
    pairs: Pairs,
    *,
    deepest_far: float = DEEPEST_FAR,
    lowest: float | None = None,
    per_query: bool = False,
    track: Track = silent,
) -> Sweep:
    """Walk all pairs once.

    The lowest threshold needed accepts ``deepest_far`` of the impostor pairs, or is ``lowest`` if that is
    lower still; ``per_query`` adds ranks, best matches and geometry.
    """
    far = max(deepest_far, DEEPEST_FAR)
    needed = min(int(far * pairs.n_impostor) + 2, pairs.n_impostor)
    bins, floor = _estimate_bins_and_floor(pairs, far)
    if lowest is not None:
        wanted = int(bins.find(lowest))
        floor = np.float32(min(float(floor), float(bins.compute_edges(wanted))) if wanted else -np.inf)
    while True:
        sweep = _walk_pairs(pairs, bins, floor, per_query, track)
        if sweep.top.length >= needed:
            return sweep
        floor = bins.compute_edges(sweep.find_bin_of_rank(np.array([needed])))[0]
        if floor <= bins.compute_edges(0):  # the first bin also holds what lies below its edge
            floor = np.float32(-np.inf)


def _sum_from_above(histogram: Int64s) -> Int64s:
    return np.concatenate([np.cumsum(histogram[::-1])[::-1], [0]]).astype(np.int64)


def _estimate_bins_and_floor(pairs: Pairs, far: float) -> tuple[ScoreBins, np.float32]:
    """Bins and a floor from a sample of the items; what they are changes the cost, never a figure."""
    part = pairs.sample(SAMPLE)
    block = part.score_block(slice(0, len(part.a)), slice(0, len(part.b)), exact=False)
    impostor = part.a.codes[:, None] != part.b.codes[None, :]
    low, high = float(block.scores.min()), float(block.scores.max())
    scores = np.sort(block.scores[::EVERY][impostor[::EVERY]])
    spare = 0.1 * (high - low)
    if pairs.scorer.is_similarity:
        bins = ScoreBins.cover(max(-1.0, low - spare), min(1.0, high + spare))
    else:
        bins = ScoreBins.cover(low - spare, high + spare)
    if not len(scores):
        return bins, np.float32(-np.inf)
    accepted = ((block.scores >= _estimate_quantile(scores, far)) & impostor).mean(axis=1)
    # twice the standard error of a two-sample mean under the sampling of items, four times over
    slack = 8 * float(accepted.std()) / np.sqrt(min(len(part.a), len(part.b)))
    floor = bins.compute_edges(bins.find(_estimate_quantile(scores, far + slack)))
    return bins, np.float32(-np.inf) if floor <= bins.compute_edges(0) else np.float32(floor)


def _estimate_quantile(ascending: Float32s, fraction: float) -> np.float32:
    """The score that about this fraction of the scores reach."""
    return np.float32(ascending[max(0, int((1 - fraction) * len(ascending)) - 1)])


def _walk_pairs(pairs: Pairs, bins: ScoreBins, floor: np.float32, per_query: bool, track: Track) -> Sweep:
    top = TopImpostors.for_sizes(len(pairs.a), len(pairs.b))
    queries = QueryRanks.start(pairs) if per_query and has_few_partners(pairs) else None
    histogram = np.zeros(bins.count, dtype=np.int64)
    workers = split_rows(BLOCK_ROWS)
    partial = np.zeros((len(workers), bins.count), dtype=np.uint32)
    room = max(map(len, workers)) * BLOCK_COLUMNS
    outputs = [
        (np.empty(room, top.dtype), np.empty(room, top.dtype), np.empty(room, np.float32)) for _ in workers
    ]
    kernel_sum = 0.0
    for number, (rows, columns) in enumerate(track(pairs.tiles, "pairs", len(pairs.tiles))):
        block = pairs.score_block(rows, columns)
        view = pairs.build_view(block)
        shards = split_rows(len(block.scores), len(workers))
        filled = run_in_threads(
            scan_rows,
            [
                (view, shard, bins.scale, bins.lowest, partial[k], floor, *outputs[k])
                for k, shard in enumerate(shards)
            ],
        )
        for (a, b, scores), n in zip(outputs, filled, strict=False):
            top.add(a[:n], b[:n], scores[:n])
        if queries is not None:
            queries.add(block, view)
        if per_query:
            similarities = view._replace(scores=block.similarities)
            kernel_sum += sum(
                run_in_threads(sum_gaussian_kernels, [(similarities, shard) for shard in shards])
            )
        if number % MERGE_EVERY == MERGE_EVERY - 1:
            histogram += partial.sum(axis=0, dtype=np.int64)
            partial[:] = 0
    histogram += partial.sum(axis=0, dtype=np.int64)
    ranks = None
    if per_query:
        ranks = compute_ranks(pairs, track) if queries is None else queries.compute_ranks()
    genuine = np.zeros(bins.count, dtype=np.int64)
    for part in pairs.iterate_genuine():
        genuine += np.bincount(bins.find(part.scores), minlength=bins.count)
    return Sweep(pairs, bins, histogram, genuine, floor, top, ranks, kernel_sum if per_query else None)


TARGET_BITS = 20  # about a million bins; those that hold most scores together fit a second-level cache


FLOAT32_BITS = 24


@dataclass(frozen=True)
class ScoreBins:
    """Bin b holds scores in [edge(b), edge(b + 1)); the first and last also take what lies beyond.

    Scaling by a power of two and taking the floor are exact in float32, hence ``score >= edge(b)``
    iff its bin is at least b (for b > 0).
    """

    exponent: int
    base: int
    count: int

    @classmethod
    def cover(cls, low: float, high: float) -> ScoreBins:
        """About a million bins over a range of scores."""
        width = max(high - low, 2.0**-10)
        largest = max(abs(low), abs(high), 2.0**-10)
        exponent = min(
            TARGET_BITS - math.ceil(math.log2(width)), FLOAT32_BITS - 1 - math.ceil(math.log2(largest))
        )
        base = math.floor(low * 2.0**exponent)
        return cls(exponent, base, math.floor(high * 2.0**exponent) - base + 1)

    @property
    def scale(self) -> np.float32:
        """Factor of a score before its floor is taken."""
        return np.float32(2.0**self.exponent)

    @property
    def lowest(self) -> np.float32:
        """The number of the first bin's lower edge, a whole number below 2^24."""
        return np.float32(self.base)

    def find(self, scores: ArrayLike) -> Int64s:
        """int64: the bin of each score."""
        scaled = np.floor(np.asarray(scores, dtype=np.float32) * self.scale).astype(np.int64)
        return np.asarray(np.clip(scaled - self.base, 0, self.count - 1))

    def compute_edges(self, bins: ArrayLike) -> Float32s:
        """float32: the lowest score of each bin."""
        return ((np.asarray(bins, dtype=np.int64) + self.base) / 2.0**self.exponent).astype(np.float32)
