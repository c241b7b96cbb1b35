"""``Idempotency-Key``: the same write is carried out once, whoever is asked, and answered as before."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.index import postgres
from tests.service.bundles import serve

ROWS = np.random.default_rng(6).normal(size=(4, 16)).tolist()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def addresses(
    request: pytest.FixtureRequest, bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """A service, and a second one on the same database where there can be one."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            one = stack.enter_context(serve(bundle.path, data=tmp_path_factory.mktemp("data")))
            yield [one, one]
            return
        database = stack.enter_context(postgres.running())
        yield [
            stack.enter_context(
                serve(bundle.path, data=tmp_path_factory.mktemp("data"), database_url=database)
            )
            for _ in range(2)
        ]


def put(address: str, key: str, name: str, row: int = 0) -> httpx.Response:
    items = [{"id": name, "label": "x", "vector": ROWS[row]}]
    return httpx.put(f"{address}/v1/items", json={"items": items}, headers={"Idempotency-Key": key})


def test_a_write_that_is_sent_again_is_answered_as_before(addresses: list[str]) -> None:
    one, other = addresses
    first, again = put(one, "k1", "a"), put(other, "k1", "a")
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert first.json()["new"] == 1, "a second write would say 0"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]

    headers = {"Idempotency-Key": "k2"}
    gone = [httpx.delete(f"{at}/v1/items/a", headers=headers) for at in (one, other, one)]
    assert [answer.status_code for answer in gone] == [200, 200, 200], "and not 404"
    assert gone[0].json() == gone[1].json() == gone[2].json()


def test_a_key_with_another_body_is_refused_and_changes_nothing(addresses: list[str]) -> None:
    one, other = addresses
    assert put(one, "k3", "b").status_code == 200
    refused = put(other, "k3", "c")
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/key-reused")
    assert httpx.get(f"{one}/v1/items/c").status_code == 404
    assert httpx.delete(f"{one}/v1/items/b", headers={"Idempotency-Key": "k3"}).status_code == 422
    for wrong in ("", "x" * 256, "a b"):
        assert put(one, wrong, "c").status_code == 422


def test_what_failed_may_be_sent_again(addresses: list[str]) -> None:
    one, other = addresses
    items: list[dict[str, Any]] = [{"id": "d", "label": "x", "vector": ROWS[0][:3]}]
    headers = {"Idempotency-Key": "k4"}
    for _ in range(2):
        answer = httpx.put(f"{one}/v1/items", json={"items": items}, headers=headers)
        assert answer.status_code == 422
        assert "idempotency-replayed" not in answer.headers
    items[0]["vector"] = ROWS[0]
    assert httpx.put(f"{other}/v1/items", json={"items": items}, headers=headers).status_code == 200


def test_many_at_once_are_one(addresses: list[str]) -> None:
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda at=at: answers.append(put(at, "k5", "e", 1))) for at in addresses * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {200, 409}
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert all(answer == done[0] for answer in done)
    assert done[0]["new"] == 1


def test_a_decision_needs_no_key(addresses: list[str]) -> None:
    body = {"queries": [{"vector": ROWS[2]}]}
    answers = [httpx.post(f"{at}/v1/match", json=body, headers={"Idempotency-Key": "k6"}) for at in addresses]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any("idempotency-replayed" in answer.headers for answer in answers), "it is decided again"


def test_keys_are_forgotten_after_a_day(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at:
        put(at, "old", "a")
        (file,) = tmp_path.glob("models/*/limen.sqlite")
        with closing(sqlite3.connect(file)) as database:
            database.execute("UPDATE replies SET at = at - 90000")
            database.commit()
        assert put(at, "new", "b").status_code == 200
        assert put(at, "old", "a").json()["new"] == 0, "carried out again"
