"""Searches that arrive together are ranked as one batch and find what each finds alone."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from index.gallery.gallery import Gallery
from index.search.gallery_view import AHEAD, GalleryView, RankedAhead
from index.search.generation import Generation
from service.runtime.rank_together import RankTogether
from tests.index.conftest import MakeBundle, make_bundle, make_items, make_small_config, make_unit_rows

ROWS = make_unit_rows(np.random.default_rng(0), 400)
QUERIES = 3 * make_unit_rows(np.random.default_rng(1), 12)

__all__ = ["make_bundle"]  # the fixture


@pytest.fixture
def gallery(make_bundle: MakeBundle) -> Gallery:
    return Gallery.open(make_bundle(make_items(ROWS), make_small_config("hnsw"), match=0.2))


@pytest.fixture
def ranked_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each search of the view had that was not answered from before."""
    sizes: list[int] = []
    search = Generation.search

    def note(self: Any, queries: Any, *arguments: Any, **named: Any) -> Any:
        sizes.append(len(queries))
        return search(self, queries, *arguments, **named)

    monkeypatch.setattr(Generation, "search", note)
    return sizes


async def ask(together: RankTogether, gallery: Gallery, query: Any, k: int) -> tuple[Any, Any]:
    """What a request does: ranked with others, it searches and matches."""
    AHEAD.set(await together.rank(gallery, query[None], k))
    return gallery.search(query[None], k), gallery.match(query[None], k)


def ask_together(gallery: Gallery, arrived: int, ks: list[int]) -> list[Any]:
    async def run() -> list[Any]:
        together = RankTogether(lambda: arrived)
        return await asyncio.gather(
            *(ask(together, gallery, query, k) for query, k in zip(QUERIES, ks, strict=False))
        )

    return asyncio.run(run())


def test_together_they_find_what_each_finds_alone(gallery: Gallery, ranked_at_once: list[int]) -> None:
    ks = [10, 10, 5, 10, 5, 7]
    alone = [
        (gallery.search(query[None], k), gallery.match(query[None], k))
        for query, k in zip(QUERIES, ks, strict=False)
    ]
    ranked_at_once.clear()
    assert ask_together(gallery, 6, ks) == alone
    assert sorted(ranked_at_once) == [1, 1, 2, 3], "three of k 10, two of k 5, and one that searches twice"
    ranked_at_once.clear()
    assert ask_together(gallery, 40, ks) == alone, "others that arrived do something else"
    assert max(ranked_at_once) == 3
    ranked_at_once.clear()
    assert ask_together(gallery, 1, ks) == alone
    assert set(ranked_at_once) == {1}


def test_what_cannot_be_searched_is_left_to_the_request(gallery: Gallery) -> None:
    async def run() -> list[RankedAhead | None]:
        together = RankTogether(lambda: 3)
        bad = np.full((1, 16), np.nan, dtype=np.float32)
        short = np.ones((1, 3), dtype=np.float32)
        return await asyncio.gather(
            together.rank(gallery, bad, 3),
            together.rank(gallery, short, 3),
            together.rank(gallery, ROWS[:1], 3),
        )

    assert asyncio.run(run()) == [None, None, None]


def test_a_client_that_leaves_holds_up_nobody(gallery: Gallery) -> None:
    async def run() -> Any:
        together = RankTogether(lambda: 4)
        tasks = [asyncio.create_task(together.rank(gallery, row[None], 3)) for row in ROWS[:3]]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone, last = asyncio.run(run())
    assert isinstance(gone, asyncio.CancelledError)
    assert first.items.rows[0, 0] == 0
    assert last.items.rows[0, 0] == 2


def test_what_was_ranked_is_taken_for_that_search_alone(gallery: Gallery) -> None:
    view = gallery.view
    items = view.rank(ROWS[:1], 3)
    ahead = RankedAhead(view, ROWS[:1], 3, items)
    token = AHEAD.set(ahead)
    try:
        assert view.rank(ROWS[:1], 3) is items
        for other in (
            view.rank(ROWS[1:2], 3),
            view.rank(ROWS[:1], 4),
            view.rank(ROWS[:1], 3, exact=True),
            view.rank(ROWS[:1], 3, condition={"label": "c1"}),
            view.rank(ROWS[:1], 3, exclude_ids=["i0"]),
            GalleryView(view.main).rank(ROWS[:1], 3),
        ):
            assert other is not items
    finally:
        AHEAD.reset(token)
