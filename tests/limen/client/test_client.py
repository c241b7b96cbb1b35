"""The two clients: one description of each request, answers read, failures in words."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from common.errors import LimenError
from limen.client import AsyncClient, Client, ServiceError, ServiceUnreachable, requests, unknown_requests
from limen.client.client import _Api

DESCRIBED = {
    name: value
    for described in (requests, unknown_requests)
    for name, value in vars(described).items()
    if inspect.isfunction(value) and value.__module__ == described.__name__ and not name.startswith("_")
}
ALIVE = {"status": "ready", "model_hash": "ab", "self_recall": 1.0, "probed_rows": 3}


def make_clients(
    handle: Callable[[httpx.Request], httpx.Response], retries: int = 0
) -> tuple[Client, AsyncClient]:
    transport = httpx.MockTransport(handle)
    return (
        Client("http://here", retries=retries, transport=transport),
        AsyncClient("http://here", retries=retries, transport=transport),
    )


def test_every_description_is_a_method_of_both_clients() -> None:
    assert {name for name in vars(_Api) if name in DESCRIBED} == set(DESCRIBED)
    for name, describe in DESCRIBED.items():
        assert getattr(Client, name).__doc__ == describe.__doc__ != ""
        assert inspect.signature(getattr(Client(), name)) == inspect.signature(describe)


def test_both_send_the_same_and_read_the_same() -> None:
    sent: list[tuple[Any, ...]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, str(request.url), dict(request.headers), request.content))
        return httpx.Response(200, json={"results": [], "model_hash": "ab", "took_ms": 1.0})

    client, async_client = make_clients(handle)
    rows = np.ones((2, 3))
    given: dict[str, Any] = {"k": 3, "filter": {"label": "a"}}
    first = client.match(rows, **given)
    second = asyncio.run(async_client.match(rows, **given))
    assert first == second
    assert sent[0][:2] == sent[1][:2]
    assert sent[0][3] == sent[1][3] == np.ones((2, 3), "<f4").tobytes()
    assert sent[0][2]["content-type"] == "application/octet-stream"
    assert "filter=%7B%22label%22%3A%22a%22%7D" in sent[0][1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("refused"), "No service answers at http://here: start one with `limen serve"),
        (httpx.ReadTimeout("slow"), "did not answer in time"),
        (httpx.RemoteProtocolError("gone"), "broke before an answer came"),
    ],
)
def test_without_an_answer_the_error_says_what_to_do(error: httpx.TransportError, words: str) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    client, async_client = make_clients(handle)
    with pytest.raises(ServiceUnreachable, match=words) as raised:
        client.info()
    assert isinstance(raised.value, LimenError)
    with pytest.raises(ServiceUnreachable, match=words):
        asyncio.run(async_client.info())


def test_a_real_refused_connection() -> None:
    with (
        Client("http://127.0.0.1:1", retries=0) as client,
        pytest.raises(ServiceUnreachable, match="limen serve"),
    ):
        client.ready()


def test_overload_is_tried_again_and_a_lost_answer_is_not() -> None:
    attempts: list[int] = []

    def answer_busy_once(request: httpx.Request) -> httpx.Response:
        attempts.append(1)
        return (
            httpx.Response(200, json=ALIVE)
            if len(attempts) > 1
            else httpx.Response(429, headers={"Retry-After": "0"})
        )

    client, async_client = make_clients(answer_busy_once, retries=1)
    assert client.ready().probed_rows == 3
    attempts.clear()
    assert asyncio.run(async_client.ready()).probed_rows == 3
    assert len(attempts) == 2

    def lose_connection(request: httpx.Request) -> httpx.Response:
        attempts.append(1)
        raise httpx.ReadError("torn")

    attempts.clear()
    client, _ = make_clients(lose_connection, retries=3)
    with pytest.raises(ServiceUnreachable):
        client.upsert([{"id": "a", "label": "a", "vector": [1.0]}])
    assert len(attempts) == 1, "a write may have been done"


def test_what_stands_between_answers_in_html() -> None:
    client, _ = make_clients(lambda request: httpx.Response(502, text="<html>"))
    with pytest.raises(ServiceError, match="502 without a problem document"):
        client.info()
