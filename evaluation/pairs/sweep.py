"""One walk over all pairs that leaves behind what every figure of a report needs.

What is kept is small: a histogram of the impostor scores in about a million bins with exact edges,
the pairs above a bar a little below the lowest threshold of the calibration range, and per query its
best impostor and how many impostors come ahead of each of its partners. Order statistics are exact:
the bin is known from the histogram, and the scores within the bin are looked up among the kept pairs
or, below the bar, in another walk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.array_types import Float32s, Int64s
from common.progress import Track, silent
from decision.scorers import CosineScorer
from evaluation.kernels.impostor_kernels import collect_bins, scan_rows, sum_of_kernels
from evaluation.pairs.pairs import BLOCK_COLUMNS, BLOCK_ROWS, Pairs
from evaluation.pairs.ranks import Queries, Ranks, few_partners, ranks_of
from evaluation.pairs.score_bins import Bins
from evaluation.pairs.threads import in_threads, row_shares
from evaluation.pairs.top_impostors import TopPairs

SAMPLE = 3072  # items of each side that a first look at the impostor scores takes
EVERY = 4  # of these, the rows whose scores are sorted for it
MERGE_EVERY = 256  # tiles after which 32-bit bin counts go into 64-bit ones, before they can overflow
DEEPEST_FAR = 0.1  # TAR is wanted up to this FAR, whatever the calibration range


@dataclass(eq=False)
class Sweep:
    """Everything that one walk found.

    Attributes:
        pairs: what was walked.
        bins: of the histograms.
        histogram, genuine_histogram: int64 [bins.count]: impostor and genuine scores per bin.
        bar: the lower edge of a bin; ``top`` holds every impostor pair that reaches it.
        top: positions and scores of these pairs.
        ranks: per row of ``a``: best impostor, best partner, ranks of the partners; if wanted.
        kernel_sum: sum of exp(-2 |x - y|^2) over the impostor pairs.
    """

    pairs: Pairs
    bins: Bins
    histogram: Int64s
    genuine_histogram: Int64s
    bar: np.float32
    top: TopPairs
    ranks: Ranks | None
    kernel_sum: float | None

    @cached_property
    def impostors_from(self) -> Int64s:
        """int64 [bins.count + 1]: impostor scores in bin b or above."""
        return np.concatenate([np.cumsum(self.histogram[::-1])[::-1], [0]]).astype(np.int64)

    @cached_property
    def genuine_from(self) -> Int64s:
        """int64 [bins.count + 1]: genuine scores in bin b or above."""
        return np.concatenate([np.cumsum(self.genuine_histogram[::-1])[::-1], [0]]).astype(np.int64)

    def accepted(self, thresholds: Float32s, above: Int64s, inside: Float32s) -> Int64s:
        """int64: how many scores are at or above each threshold.

        Args:
            thresholds: float32 [k].
            above: ``impostors_from`` or ``genuine_from``.
            inside: ascending, all scores of that kind in the thresholds' own bins.
        """
        bins = self.bins.of(thresholds)
        through = np.searchsorted(self.bins.of(inside), bins, side="right")
        return np.asarray(above[bins + 1] + through - np.searchsorted(inside, thresholds, side="left"))

    def impostors_ranked(self, ranks: Int64s) -> Float32s:
        """float32, the impostor scores of given ranks; rank 1 is the highest score. Exact."""
        bins = self.bin_of_rank(ranks)
        scores = self.impostor_scores_in(np.unique(bins))[::-1]
        found_in = self.bins.of(scores)
        # descending scores: the first of a bin stands after all scores of higher wanted bins
        first = np.searchsorted(-found_in, -bins, side="left")
        return np.asarray(scores[first + ranks - 1 - self.impostors_from[bins + 1]])

    def bin_of_rank(self, ranks: Int64s) -> Int64s:
        """int64: the bin that holds the impostor score of each rank."""
        return np.asarray(
            self.bins.count - np.searchsorted(self.impostors_from[::-1], ranks, side="left")
        ).astype(np.int64)

    def impostor_scores_in(self, bins: Int64s) -> Float32s:
        """float32, ascending: every impostor score of the given bins."""
        wanted = np.zeros(self.bins.count, dtype=bool)
        wanted[bins] = True
        if len(bins) == 0 or self.bins.edge(bins.min()) >= self.bar:
            parts = [scores[wanted[self.bins.of(scores)]] for _, _, scores in self.top.chunks]
        else:
            parts = []
            found = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, dtype=np.float32)
            for block in self.pairs.blocks():
                everything = np.arange(len(block.scores))
                n = collect_bins(
                    self.pairs.place(block), everything, self.bins.scale, self.bins.lowest, wanted, found
                )
                parts.append(found[:n].copy())
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.float32)

    def genuine_scores_in(self, bins: Int64s) -> Float32s:
        """float32, ascending: every genuine score of the given bins; 4 bytes each."""
        wanted = np.zeros(self.bins.count, dtype=bool)
        wanted[bins] = True
        parts = [part.scores[wanted[self.bins.of(part.scores)]] for part in self.pairs.genuine_parts()]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.float32)


def sweep(pairs: Pairs, *, deepest_far: float, per_query: bool, track: Track = silent) -> Sweep:
    """Walk all pairs once.

    Args:
        pairs: at least one impostor pair.
        deepest_far: the lowest threshold that will be asked for accepts this share of the impostors.
        per_query: whether ranks, best matches and geometry are wanted.
        track: shown the blocks of the walk.
    """
    far = max(deepest_far, DEEPEST_FAR)
    needed = min(int(far * pairs.n_impostor) + 2, pairs.n_impostor)
    bins, bar = _first_look(pairs, far)
    while True:
        found = _walk(pairs, bins, bar, per_query, track)
        if found.top.length >= needed:
            return found
        bar = bins.edge(found.bin_of_rank(np.array([needed])))[0]
        if bar <= bins.edge(0):  # the first bin also holds what lies below its edge
            bar = np.float32(-np.inf)


def _first_look(pairs: Pairs, far: float) -> tuple[Bins, np.float32]:
    """Bins and a bar from a sample of the items; what they are changes the cost, never a figure."""
    part = pairs.sample(SAMPLE)
    everything = part.block(slice(0, len(part.a)), slice(0, len(part.b)), exact=False)
    impostor = part.a.codes[:, None] != part.b.codes[None, :]
    low, high = float(everything.scores.min()), float(everything.scores.max())
    scores = np.sort(everything.scores[::EVERY][impostor[::EVERY]])
    spare = 0.1 * (high - low)
    if isinstance(pairs.scorer, CosineScorer):
        bins = Bins.over(max(-1.0, low - spare), min(1.0, high + spare))
    else:
        bins = Bins.over(low - spare, high + spare)
    if not len(scores):
        return bins, np.float32(-np.inf)
    shares = ((everything.scores >= _share_above(scores, far)) & impostor).mean(axis=1)
    # twice the standard error of a two-sample mean under the sampling of items, four times over
    slack = 8 * float(shares.std()) / np.sqrt(min(len(part.a), len(part.b)))
    bar = bins.edge(bins.of(_share_above(scores, far + slack)))
    return bins, np.float32(-np.inf) if bar <= bins.edge(0) else np.float32(bar)


def _share_above(ascending: Float32s, share: float) -> np.float32:
    """The score that about this share of the scores reach."""
    return np.float32(ascending[max(0, int((1 - share) * len(ascending)) - 1)])


def _walk(pairs: Pairs, bins: Bins, bar: np.float32, per_query: bool, track: Track) -> Sweep:
    top = TopPairs.between(len(pairs.a), len(pairs.b))
    queries = Queries.of(pairs) if per_query and few_partners(pairs) else None
    histogram = np.zeros(bins.count, dtype=np.int64)
    workers = row_shares(BLOCK_ROWS)
    partial = np.zeros((len(workers), bins.count), dtype=np.uint32)
    room = max(map(len, workers)) * BLOCK_COLUMNS
    outputs = [
        (np.empty(room, top.dtype), np.empty(room, top.dtype), np.empty(room, np.float32)) for _ in workers
    ]
    kernel_sum = 0.0
    for number, (rows, columns) in enumerate(track(pairs.tiles, "pairs", len(pairs.tiles))):
        block = pairs.block(rows, columns)
        place = pairs.place(block)
        shares = row_shares(len(block.scores), len(workers))
        filled = in_threads(
            scan_rows,
            [
                (place, share, bins.scale, bins.lowest, partial[k], bar, *outputs[k])
                for k, share in enumerate(shares)
            ],
        )
        for (a, b, scores), n in zip(outputs, filled, strict=False):
            top.add(a[:n], b[:n], scores[:n])
        if queries is not None:
            queries.meet(block, place)
        if per_query:
            likeness = place._replace(scores=block.similarities)
            kernel_sum += sum(in_threads(sum_of_kernels, [(likeness, share) for share in shares]))
        if number % MERGE_EVERY == MERGE_EVERY - 1:
            histogram += partial.sum(axis=0, dtype=np.int64)
            partial[:] = 0
    histogram += partial.sum(axis=0, dtype=np.int64)
    ranks = None
    if per_query:
        ranks = ranks_of(pairs, track) if queries is None else queries.ranks()
    genuine = np.zeros(bins.count, dtype=np.int64)
    for part in pairs.genuine_parts():
        genuine += np.bincount(bins.of(part.scores), minlength=bins.count)
    return Sweep(pairs, bins, histogram, genuine, bar, top, ranks, kernel_sum if per_query else None)
