"""Single searches that arrived together, ranked as one batch.

Most of what a small search takes besides the graph is Python around arrays of one query, which a batch pays
once, and FAISS searches a batch on all cores. Nothing waits for company: only requests whose headers were
here before the loop began to answer are ranked together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import UnitVectors
from common.errors import InputError
from embeddings.embedding_set import normalise_queries
from index.gallery.gallery import Gallery
from index.search.gallery_view import GalleryView, RankedAhead


class _Waiting(NamedTuple):
    view: GalleryView
    query: UnitVectors
    k: int
    ranked: asyncio.Future[RankedAhead | None]


class RankTogether:
    """Ranks the single searches of one iteration of the event loop.

    Args:
        count_arrived: how many requests had arrived when the loop began to answer them.
    """

    def __init__(self, count_arrived: Callable[[], int]) -> None:
        self._count_arrived = count_arrived
        self._waiting: list[_Waiting] = []

    async def rank(self, gallery: Gallery, vector: ArrayLike, k: int) -> RankedAhead | None:
        """What a search for the k nearest of one vector [1, d] will find; None where it is to look itself."""
        arrived = self._count_arrived()
        if arrived < 2:
            return None
        try:
            query, view = normalise_queries(vector, gallery.dim), gallery.view
        except InputError:  # which the search will say better
            return None
        loop = asyncio.get_running_loop()
        ranked: asyncio.Future[RankedAhead | None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._rank_waiting)  # others of those that arrived may never come here
        self._waiting.append(_Waiting(view, query, k, ranked))
        if len(self._waiting) == arrived:
            self._rank_waiting()
        return await ranked

    def _rank_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        groups: dict[tuple[int, int], list[_Waiting]] = {}
        for one in waiting:
            groups.setdefault((id(one.view), one.k), []).append(one)
        for group in groups.values():
            for one, ahead in zip(group, _rank_group(group), strict=True):
                if not one.ranked.done():  # its client may have gone
                    one.ranked.set_result(ahead)


def _rank_group(group: list[_Waiting]) -> list[RankedAhead] | list[None]:
    """What each will find; None for each where that is no gain, or fails, as it then does by itself."""
    if len(group) == 1:
        return [None]
    view, _, k, _ = group[0]
    try:
        items = view.rank(np.concatenate([one.query for one in group]), k)
    except Exception:
        return [None] * len(group)
    return [RankedAhead(view, one.query, k, items.select(number)) for number, one in enumerate(group)]
