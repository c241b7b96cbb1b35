"""The asyncio client gives the answers of the synchronous one."""

from __future__ import annotations

from typing import Any

from limen.client import AsyncClient, Client


async def _call_all(address: str, bundle: Any) -> list[Any]:
    async with AsyncClient(address, retries=0) as client:
        ready, info = await client.ready(), await client.info()
        points, report = await client.operating_points(), await client.consistency()
        search = await client.search(bundle.gallery.vectors[:2], k=3)
        match = await client.match([{"id": "item-1"}])
        pairs = await client.verify([({"id": "item-1"}, {"id": "item-2"})])
        return [ready, info, points, report, search.results, match.results[0].score, pairs.results[0].score]


def test_the_asynchronous_client_is_the_same(address: str, client: Client, bundle: Any) -> None:
    import asyncio

    assert asyncio.run(_call_all(address, bundle)) == [
        client.ready(),
        client.info(),
        client.operating_points(),
        client.consistency(),
        client.search(bundle.gallery.vectors[:2], k=3).results,
        client.match([{"id": "item-1"}]).results[0].score,
        client.verify([({"id": "item-1"}, {"id": "item-2"})]).results[0].score,
    ]
