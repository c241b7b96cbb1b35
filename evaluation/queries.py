"""What every query met: its best impostor, its best partner, and the ranks of its partners."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evaluation.pairs import Block, GenuinePairs, Integers, Pairs
from evaluation.place import Place
from evaluation.rank_kernels import State, best_and_ranks_of_columns, best_and_ranks_of_rows, raise_bars
from evaluation.threads import cores, in_threads, row_shares

DEEPEST_RANK = 10  # recall is asked at up to this rank; beyond it ranks matter up to the partners' number

Scores = NDArray[np.float32]


@dataclass(eq=False)
class Queries:
    """Per row of ``a``; where a set is compared with itself, every item is a query of all others.

    Attributes:
        best: float32 [n]: highest score of an impostor, -inf where there is none.
        best_row: int64 [n]: the impostor's row in the set that was given, lowest among ties.
        partner_starts: int64 [n + 1]: the partners of query q stand at starts[q]:starts[q + 1].
        partner_similarities: float32, descending within a query, ties by row.
        partner_rows: int32: the partners' rows in the set that was given.
        best_partner, best_partner_row: float32 and int64 [n]: the best partner by score, -inf and -1.
        ahead: int32, per partner: impostors that come after the partner before it and before itself;
            exact wherever the rank can still matter.
    """

    pairs: Pairs
    best: Scores
    best_row: Integers
    partner_starts: Integers
    partner_similarities: Scores
    partner_rows: NDArray[np.int32]
    best_partner: Scores
    best_partner_row: Integers
    ahead: NDArray[np.int32]
    bars: Scores

    @classmethod
    def of(cls, pairs: Pairs, genuine: GenuinePairs) -> Queries:
        """Partners in their order, no impostor met yet."""
        n = len(pairs.a)
        query, other = genuine.a, genuine.b
        scores, similarities = genuine.scores, genuine.similarities
        if pairs.symmetric:
            query, other = np.concatenate([query, other]), np.concatenate([other, query])
            scores, similarities = np.tile(scores, 2), np.tile(similarities, 2)
        rows = pairs.b.rows[other].astype(np.int32)
        order = np.lexsort((rows, -similarities, query))
        starts = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=n))]).astype(np.int64)
        best_partner = np.full(n, -np.inf, dtype=np.float32)
        best_partner_row = np.full(n, -1, dtype=np.int64)
        same = genuine.scores is genuine.similarities
        by_score = order if same else np.lexsort((rows, -scores, query))
        have = np.flatnonzero(np.diff(starts))
        best_partner[have] = scores[by_score[starts[have]]]
        best_partner_row[have] = rows[by_score[starts[have]]]
        found = cls(
            pairs=pairs,
            best=np.full(n, -np.inf, dtype=np.float32),
            best_row=np.full(n, np.iinfo(np.int64).max),
            partner_starts=starts,
            partner_similarities=similarities[order],
            partner_rows=rows[order],
            best_partner=best_partner,
            best_partner_row=best_partner_row,
            ahead=np.zeros(len(order), dtype=np.int32),
            bars=np.full(n, np.inf, dtype=np.float32),
        )
        found._raise(np.arange(n))
        return found

    @property
    def _state(self) -> State:
        return State(
            self.best,
            self.best_row,
            self.partner_starts,
            self.partner_similarities,
            self.partner_rows,
            self.ahead,
            self.bars,
        )

    def meet(self, block: Block, place: Place) -> None:
        """Take note of a block's impostors; ``place`` is the block's place among the pairs."""
        state = self._state
        rows, columns = block.scores.shape
        in_threads(
            best_and_ranks_of_rows,
            [(place, share, block.similarities, self.pairs.b.rows, state) for share in row_shares(rows)],
        )
        self._raise(np.arange(block.rows.start, block.rows.stop))
        if not self.pairs.symmetric:
            return
        edges = np.linspace(0, columns, cores() + 1).astype(np.int64)
        in_threads(
            best_and_ranks_of_columns,
            [
                (place, int(first), int(stop), block.similarities, self.pairs.a.rows, state)
                for first, stop in pairwise(edges)
                if stop > first
            ],
        )
        self._raise(np.arange(block.columns.start, block.columns.stop))

    def _raise(self, queries: Integers) -> None:
        raise_bars(queries, DEEPEST_RANK, self._state)

    @cached_property
    def n_partners(self) -> Integers:
        """int64 [n]: items of the query's class it can be matched with."""
        return np.diff(self.partner_starts)

    @cached_property
    def ranks(self) -> Integers:
        """int64, per partner: its rank among all items the query is compared with, 1 the nearest.

        Exact up to the larger of the number of partners and ``DEEPEST_RANK``, beyond that a lower bound
        that still lies beyond it.
        """
        running = np.concatenate([[0], np.cumsum(self.ahead, dtype=np.int64)])
        before = running[1:] - np.repeat(running[self.partner_starts[:-1]], self.n_partners)
        return np.asarray(before + self.places)

    @cached_property
    def places(self) -> Integers:
        """int64, per partner: its place among the query's partners, 1 the nearest."""
        return np.arange(1, len(self.ahead) + 1) - np.repeat(self.partner_starts[:-1], self.n_partners)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """bool [n]: whether the best of all by score is a partner; ties go to the lower row."""
        tie_won = (self.best_partner == self.best) & (self.best_partner_row < self.best_row)
        return np.asarray((self.n_partners > 0) & ((self.best_partner > self.best) | tie_won))
