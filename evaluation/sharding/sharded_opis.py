"""OPIS (docs/specification.md, OPIS) by several processes: exact, from whole numbers that add up.

Each process walks its part of the blocks of pairs three times. The first two find the impostor scores of the
ranks that the grid needs, digit by digit of their sortable bits (radix selection, Knuth vol. 3, 5.2.5); the
third counts the pairs of each class at every threshold. What is exchanged are histograms, so that nothing
depends on how many processes there are: 2 x 65,536 counts for the ranks, and classes x thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.progress import Track, silent
from decision.scorers import count_reached
from evaluation.kernels.impostor_kernels import count_at_levels
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.opis import OpisSettings, compute_opis, select_scored
from evaluation.metrics.threshold_grid import ThresholdGrid, place_thresholds
from evaluation.pairs.pairs import BLOCK_ROWS, Block, Pairs
from evaluation.pairs.threads import run_in_threads, split_rows
from evaluation.pairs.threshold_levels import cumulate_levels
from evaluation.sharding.exchange import FolderExchange

HALF = 16  # bits of a score that one walk looks at
DIGITS = 1 << HALF


@dataclass(frozen=True, eq=False)
class ShardedOpis:
    """The figures, and the whole numbers that they are made of.

    Attributes:
        grid: the thresholds.
        genuine, impostor: int64 [classes, 2 x grid]: accepted pairs at the uniform, then at the log-FAR
            thresholds; an impostor pair counts for both of its classes.
        opis, opis_logfar: plain, over both grids; None with fewer than two scored classes.
    """

    grid: ThresholdGrid
    genuine: Int64s
    impostor: Int64s
    opis: float | None
    opis_logfar: float | None


def measure_sharded_opis(pairs: Pairs, exchange: FolderExchange, track: Track = silent) -> ShardedOpis:
    """The plain OPIS of all pairs; every process must be given the same pairs, and gets the same answer.

    Similarities are computed in float64 and rounded to float32, block by block, as decisions are.
    """
    settings, shard = OpisSettings(), _Shard(pairs, exchange, track)
    grid = place_thresholds(
        shard.find_scores, pairs.n_impostor, pairs.scorer.is_similarity, settings.far, settings.grid
    )
    thresholds = np.concatenate([grid.uniform, grid.log_far])
    order = np.argsort(thresholds, kind="stable")
    back = np.argsort(order)
    impostor = shard.count_impostors(thresholds[order])[:, back]
    genuine = shard.count_genuine(thresholds[order])[:, back]
    scored = select_scored(pairs)
    if len(scored) < 2:
        return ShardedOpis(grid, genuine, impostor, None, None)
    far = impostor[scored] / pairs.impostor_per_class[scored, None]
    frr = 1 - genuine[scored] / pairs.genuine_per_class[scored, None]
    u = compute_utility(1 - far, 1 - frr, settings.c)
    linear, log = u[:, : settings.grid], u[:, settings.grid :]
    return ShardedOpis(grid, genuine, impostor, compute_opis(linear), compute_opis(log))


class _Shard:
    """A process's part of the pairs: every ``count``-th block, and every ``count``-th class."""

    def __init__(self, pairs: Pairs, exchange: FolderExchange, track: Track) -> None:
        self._pairs, self._exchange, self._track = pairs, exchange, track
        self._tiles = pairs.tiles[exchange.rank :: exchange.count]

    def find_scores(self, ranks: Int64s) -> Float32s:
        """The impostor scores of ranks, of all processes' pairs together; rank 1 is the highest."""
        high = np.zeros(DIGITS, dtype=np.int64)
        for keys in self._iterate_keys("scores, first half"):
            high += np.bincount(keys >> HALF, minlength=DIGITS)
        first, left = _select_digits(self._exchange.add_up(high, "scores"), ranks)
        wanted = np.unique(first)
        number = np.full(DIGITS, -1, dtype=np.int64)
        number[wanted] = np.arange(len(wanted))
        low = np.zeros((len(wanted), DIGITS), dtype=np.int64)
        for keys in self._iterate_keys("scores, second half"):
            group = number[keys >> HALF]
            inside = group >= 0
            cells = group[inside] * DIGITS + (keys[inside] & (DIGITS - 1)).astype(np.int64)
            low += np.bincount(cells, minlength=low.size).reshape(low.shape)
        low = self._exchange.add_up(low, "scores")
        second = np.empty(len(ranks), dtype=np.int64)
        for position, (digit, rank) in enumerate(zip(first.tolist(), left.tolist(), strict=True)):
            second[position] = _select_digits(low[number[digit]], np.array([rank]))[0][0]
        return _from_keys((first << HALF | second).astype(np.uint32))

    def count_impostors(self, ascending: Float32s) -> Int64s:
        """int64 [classes, k]: impostor pairs at or above each threshold, for both of their classes."""
        parts = len(split_rows(BLOCK_ROWS))
        counts = np.zeros((parts, len(self._pairs.classes), len(ascending) + 1), dtype=np.int64)
        for block in self._iterate_blocks("pairs at each threshold"):
            view = self._pairs.build_view(block)
            calls = [
                (view, rows, ascending, counts[number])
                for number, rows in enumerate(split_rows(len(block.scores)))
            ]
            run_in_threads(count_at_levels, calls)
        return cumulate_levels(self._exchange.add_up(counts.sum(axis=0), "counts"))

    def count_genuine(self, ascending: Float32s) -> Int64s:
        """int64 [classes, k]: genuine pairs at or above each threshold."""
        pairs, k = self._pairs, len(ascending)
        counts = np.zeros((len(pairs.classes), k + 1), dtype=np.int64)
        codes = np.flatnonzero(pairs.genuine_per_class)[self._exchange.rank :: self._exchange.count]
        for code in codes.tolist():
            start, stop = pairs.a.starts[code : code + 2].tolist()
            for first in range(start, stop, BLOCK_ROWS):
                scores, _, is_pair = pairs.score_class(code, slice(first, min(first + BLOCK_ROWS, stop)))
                counts[code] += np.bincount(count_reached(scores[is_pair], ascending), minlength=k + 1)
        accepted = cumulate_levels(self._exchange.add_up(counts, "counts"))
        return accepted // 2 if pairs.symmetric else accepted  # both orders of a pair were counted

    def _iterate_blocks(self, name: str) -> Iterator[Block]:
        for rows, columns in self._track(self._tiles, name, len(self._tiles)):
            yield self._pairs.score_block(rows, columns, exact=True)

    def _iterate_keys(self, name: str) -> Iterator[NDArray[np.uint32]]:
        for block in self._iterate_blocks(name):
            yield _to_keys(block.scores[self._pairs.mask_impostors(block)])


def _select_digits(histogram: Int64s, ranks: Int64s) -> tuple[Int64s, Int64s]:
    """The digit that holds each rank, counted from the highest, and the rank within that digit."""
    from_above = np.cumsum(histogram[::-1])
    place = np.searchsorted(from_above, ranks, side="left")
    before = np.concatenate([[0], from_above])[place]
    return len(histogram) - 1 - place, ranks - before


def _to_keys(scores: Float32s) -> NDArray[np.uint32]:
    """uint32 that are in the order of the scores; minus zero is zero."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def _from_keys(keys: NDArray[np.uint32]) -> Float32s:
    bits = np.where(keys >> 31 == 1, keys & np.uint32((1 << 31) - 1), ~keys)
    return bits.astype(np.uint32).view(np.float32)
