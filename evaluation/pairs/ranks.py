"""Every query's best impostor, best partner, and the ranks of its partners."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise

import numpy as np

from common.array_types import Bools, Float32s, Float64s, Int64s
from common.progress import Track, silent
from evaluation.kernels.impostor_kernels import BlockView
from evaluation.kernels.rank_kernels import RankState, raise_floors, update_columns, update_rows
from evaluation.pairs.pairs import PART, Block, Pairs
from evaluation.pairs.threads import count_cores, run_in_threads, split_rows

DEEPEST_RANK = 10  # recall is given up to this rank; beyond it ranks matter up to the partners' number
PARTNERS_HELD = 2**26  # partners whose ranks are counted at a time, 12 bytes each


@dataclass(frozen=True, eq=False)
class Ranks:
    """Per row of ``a``; where a set is compared with itself, every item is a query of all others.

    R-precision and MAP@R: docs/specification.md, Retrieval ("A Metric Learning Reality Check", arXiv
    2003.08505, section 4.2). Ranks are by similarity, ties by position: by class, then by vector.

    Attributes:
        best: float32 [n]: highest score of an impostor, -inf where there is none.
        best_position: int64 [n]: the impostor's position in ``b``, lowest among ties.
        best_partner, best_partner_position: float32 and int64 [n]: the best partner by score, -inf and -1.
        n_partners: int64 [n]: items of the query's class it can be matched with.
        first_rank, r_precision, map_at_r: float64 [n], NaN where there is no partner.
    """

    best: Float32s
    best_position: Int64s
    best_partner: Float32s
    best_partner_position: Int64s
    n_partners: Int64s
    first_rank: Float64s
    r_precision: Float64s
    map_at_r: Float64s

    @classmethod
    def concatenate(cls, parts: list[Ranks]) -> Ranks:
        """Those of consecutive rows, one after the other."""
        columns = (np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls))
        return cls(*columns)

    @cached_property
    def right(self) -> Bools:
        """bool [n]: whether the best of all by score is a partner; ties go to the lower position."""
        tie_won = (self.best_partner == self.best) & (self.best_partner_position < self.best_position)
        return np.asarray((self.n_partners > 0) & ((self.best_partner > self.best) | tie_won))


def has_few_partners(pairs: Pairs) -> bool:
    """Whether the partners of all queries may be held at once."""
    return int(_count_most_partners(pairs).sum()) <= PARTNERS_HELD


def compute_ranks(pairs: Pairs, track: Track = silent) -> Ranks:
    """Ranks of all rows of ``a`` in a walk of their own, a bounded number of partners at a time.

    Where all of them may be held, a set against itself is walked once per pair.
    """
    parts = []
    strips: list[slice | None] = [None] if has_few_partners(pairs) else list(_split_rows(pairs))
    for rows in track(strips, "ranks", len(strips)):
        queries = QueryRanks.start(pairs, rows)
        for block in queries.pairs.iterate_blocks():
            queries.add(block, queries.pairs.build_view(block))
        parts.append(queries.compute_ranks())
    return Ranks.concatenate(parts)


def _count_most_partners(pairs: Pairs) -> Int64s:
    """int64 [n]: how many partners a query has at most."""
    return np.asarray(pairs.b.sizes[pairs.a.codes])


def _split_rows(pairs: Pairs) -> Iterator[slice]:
    """Consecutive rows that together have few enough partners."""
    total = np.cumsum(_count_most_partners(pairs))
    first = 0
    while first < len(total):
        before = total[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(total, before + PARTNERS_HELD, side="right")))
        yield slice(first, stop)
        first = stop


@dataclass(eq=False)
class QueryRanks:
    """Running best scores and ranks of queries: rows of the ``a`` of ``pairs``, block after block."""

    pairs: Pairs
    best_partner: Float32s
    best_partner_position: Int64s
    state: RankState

    @classmethod
    def start(cls, pairs: Pairs, rows: slice | None = None) -> QueryRanks:
        """Partners in their order, no impostor met yet; for some rows of ``a`` alone in their own blocks."""
        chosen = slice(0, len(pairs.a)) if rows is None else rows
        n, most = chosen.stop - chosen.start, int(_count_most_partners(pairs)[chosen].sum())
        best_partner, best_partner_position = np.full(n, -np.inf, dtype=np.float32), np.full(n, -1)
        partner_similarities, partner_positions = (
            np.empty(most, dtype=np.float32),
            np.empty(most, dtype=np.int32),
        )
        counts = np.zeros(n, dtype=np.int64)
        filled = 0
        for code, strip in _split_by_class(pairs, chosen):
            scores, similarities, is_pair = pairs.score_class(code, strip)
            start = int(pairs.b.starts[code])
            here = slice(strip.start - chosen.start, strip.stop - chosen.start)
            counts[here] = is_pair.sum(axis=1)
            # what is no pair is sorted to the end, beyond the counts
            order = np.argsort(np.where(is_pair, -similarities, np.float32(np.inf)), axis=1, kind="stable")
            within = np.arange(order.shape[1]) < counts[here, None]
            stop = filled + int(counts[here].sum())
            partner_similarities[filled:stop] = np.take_along_axis(similarities, order, axis=1)[within]
            partner_positions[filled:stop] = (start + order)[within]
            filled = stop
            masked = np.where(is_pair, scores, np.float32(-np.inf))
            winner = masked.argmax(axis=1)
            best_partner[here] = masked[np.arange(len(masked)), winner]
            best_partner_position[here] = np.where(counts[here] > 0, start + winner, -1)
        state = RankState(
            best=np.full(n, -np.inf, dtype=np.float32),
            best_position=np.full(n, np.iinfo(np.int64).max),
            partner_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            partner_similarities=partner_similarities[:filled],
            partner_positions=partner_positions[:filled],
            ahead=np.zeros(filled, dtype=np.int32),
            floors=np.full(n, np.inf, dtype=np.float32),
        )
        walked = pairs if rows is None else pairs.cross_rows(chosen)
        queries = cls(walked, best_partner, best_partner_position, state)
        queries._raise_floors(np.arange(n))
        return queries

    def add(self, block: Block, view: BlockView) -> None:
        """Count a block's impostors; ``view`` is the block's view (``Pairs.view``)."""
        state = self.state
        n_rows, n_columns = block.scores.shape
        run_in_threads(
            update_rows,
            [(view, rows, block.similarities, state) for rows in split_rows(n_rows)],
        )
        self._raise_floors(np.arange(block.rows.start, block.rows.stop))
        if not self.pairs.symmetric:
            return
        edges = np.linspace(0, n_columns, count_cores() + 1).astype(np.int64)
        run_in_threads(
            update_columns,
            [
                (view, int(first), int(stop), block.similarities, state)
                for first, stop in pairwise(edges)
                if stop > first
            ],
        )
        self._raise_floors(np.arange(block.columns.start, block.columns.stop))

    def _raise_floors(self, queries: Int64s) -> None:
        raise_floors(queries, DEEPEST_RANK, self.state)

    def compute_ranks(self) -> Ranks:
        """The figures of every query, once all blocks were added.

        A partner's rank is exact up to the larger of the number of partners and ``DEEPEST_RANK``, beyond
        that a lower bound that still lies beyond it.
        """
        state = self.state
        n_partners = np.diff(state.partner_starts)
        first = state.partner_starts[:-1]
        order = np.arange(1, len(state.ahead) + 1) - np.repeat(first, n_partners)
        running = np.concatenate([[0], np.cumsum(state.ahead, dtype=np.int64)])
        rank = running[1:] - np.repeat(running[first], n_partners) + order
        within = rank <= np.repeat(n_partners, n_partners)
        has_partner = np.flatnonzero(n_partners)
        figures = np.full((3, len(n_partners)), np.nan)
        if len(has_partner):
            starts = first[has_partner]
            figures[0, has_partner] = rank[starts]
            figures[1, has_partner] = (
                np.add.reduceat(within, starts, dtype=np.int64) / n_partners[has_partner]
            )
            precision = np.where(within, order / rank, 0.0)
            figures[2, has_partner] = np.add.reduceat(precision, starts) / n_partners[has_partner]
        return Ranks(
            state.best,
            state.best_position,
            self.best_partner,
            self.best_partner_position,
            n_partners,
            *figures,
        )


def _split_by_class(pairs: Pairs, rows: slice) -> Iterator[tuple[int, slice]]:
    """Each class among the rows that has items in ``b``, a bounded number of pairs at a time."""
    codes, firsts = np.unique(pairs.a.codes[rows], return_index=True)
    edges = np.append(firsts + rows.start, rows.stop)
    for code, first, stop in zip(codes, edges[:-1], edges[1:], strict=True):
        width = int(pairs.b.sizes[code])
        if width:
            height = max(1, PART // width)
            for start in range(int(first), int(stop), height):
                yield int(code), slice(start, min(start + height, int(stop)))
