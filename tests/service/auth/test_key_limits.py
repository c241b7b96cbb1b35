"""The limits of a key: refused before the body is read, told when to come back, and each key for itself."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from limen.cli.main import app
from limen.client import Client, ServiceError
from service.auth.api_keys import ApiKey, KeyFile, create_key
from service.auth.key_limits import KeyLimits
from service.auth.key_meter import KeyMeter
from service.errors.problems import ServiceProblem
from tests.service.bad_bodies import check_problem


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make_key(name: str = "shop", **limits: Any) -> ApiKey:
    made = KeyLimits(**limits) if limits else None
    return ApiKey(name=name, scope="write", sha256="0" * 64, created_at=datetime.now(UTC), limits=made)


def count(meter: KeyMeter, key: ApiKey, requests: int) -> int:
    """How many of so many requests at once are let through."""
    let_through = 0
    for _ in range(requests):
        try:
            meter.count_request(key, "GET", "/v1/info")
        except ServiceProblem:
            continue
        let_through += 1
    return let_through


def test_a_key_has_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    meter, key = KeyMeter(clock), make_key(requests_per_second=2.0, burst=5)
    assert count(meter, key, 9) == 5
    with pytest.raises(ServiceProblem, match="2 requests a second") as refused:
        meter.count_request(key, "GET", "/v1/info")
    assert refused.value.kind.status == 429
    assert refused.value.headers == {"Retry-After": "1"}
    clock.now += 1.0
    assert count(meter, key, 9) == 2, "refused requests cost nothing"
    clock.now += 3600.0
    assert count(meter, key, 9) == 5, "a pause saves up no more than the burst"
    assert count(meter, make_key(), 1000) == 1000
    assert count(meter, make_key(requests_per_second=0.1), 5) == 1


def test_items_are_counted_by_the_day() -> None:
    clock = Clock()
    meter, key = KeyMeter(clock), make_key(items_per_day=24)
    meter.check_items(key, 24)
    meter.spend_items(key, 24)
    with pytest.raises(ServiceProblem) as refused:
        meter.count_request(key, "PUT", "/v1/items")
    assert refused.value.headers == {"Retry-After": "3600"}
    meter.count_request(key, "POST", "/v1/match")
    clock.now += 2 * 3600
    meter.check_items(key, 2)
    with pytest.raises(ServiceProblem) as refused:
        meter.check_items(key, 3)
    assert refused.value.kind.slug == "rate-limited"
    with pytest.raises(ServiceProblem) as refused:
        meter.check_items(key, 25)
    assert refused.value.kind.slug == "limit-exceeded", "no waiting would help"


def test_a_key_beyond_its_rate_is_refused_before_its_body_is_read(
    start: Any, bundle: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    slow = create_key(file, "slow", "read", KeyLimits(requests_per_second=0.001, burst=2))
    free = create_key(file, "free", "read")
    at = start(bundle.path, api_keys_file=file)

    def ask(key: str) -> httpx.Response:
        return httpx.post(
            f"{at}/v1/match",
            json={"queries": [{"id": "item-0"}]},
            headers={"Authorization": f"Bearer {key}"},
        )

    assert [ask(slow).status_code for _ in range(3)] == [200, 200, 429]
    problem = check_problem(ask(slow), 429)
    assert problem.type == "/problems/rate-limited"
    assert "'slow'" in problem.detail
    assert int(ask(slow).headers["retry-after"]) > 300
    assert ask(free).status_code == 200
    host, port = urlsplit(at).hostname, urlsplit(at).port
    with socket.create_connection((host, port or 0), timeout=20) as connection:
        # its body is announced and never sent
        connection.sendall(
            f"POST /v1/match HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {slow}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 429")
    assert httpx.get(f"{at}/readyz").status_code == 200


def test_a_key_writes_no_more_items_a_day_than_it_may(start: Any, bundle: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "writer", "write", KeyLimits(items_per_day=3))
    at = start(bundle.path, data=tmp_path / "data", api_keys_file=file)
    with Client(at, key=secret, retries=0) as client:
        client.upsert(
            [{"id": f"new-{n}", "label": "new", "vector": [1.0 + n] * 15 + [0.5]} for n in range(2)]
        )
        for items in (2, 4):
            with pytest.raises(ServiceError, match="3 items a day"):
                client.upsert(
                    [{"id": f"more-{n}", "label": "new", "vector": [1.0] * 16} for n in range(items)]
                )
        assert client.info().items == 322, "what is refused writes nothing"
        client.upsert([{"id": "last", "label": "new", "vector": [1.0] * 16}])
        assert client.match([{"id": "last"}]).results


def test_limits_are_given_with_the_command_and_listed(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")

    def run(*given: str) -> str:
        result = CliRunner().invoke(app, ["keys", *given, "--file", file])
        assert result.exit_code == 0, result.output
        return result.output

    run("create", "--name", "plain")
    run("create", "--name", "shop", "--requests-per-second", "5", "--burst", "20", "--items-per-day", "1000")
    plain, shop = KeyFile.load(Path(file)).keys
    assert (plain.limits, shop.limits) == (
        None,
        KeyLimits(requests_per_second=5, burst=20, items_per_day=1000),
    )
    assert "requests_per_second=5\tburst=20\titems_per_day=1000" in run("list")
    assert "limits" not in json.loads(Path(file).read_text())["keys"][0], "as an older version has it"
    result = CliRunner().invoke(app, ["keys", "create", "--name", "x", "--burst", "3", "--file", file])
    assert result.exit_code != 0
