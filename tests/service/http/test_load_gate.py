"""Searches refused before they are calls of the app: answered as the app would, on connections that go on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import repeat
from time import monotonic
from typing import Any

import httpx
import pytest

from service.errors.problems import build_overloaded
from service.http.protocol.connections import REFUSAL_SECONDS
from service.runtime.event_loop_limit import EventLoopLimit
from tests.service.http.test_connections import POST, connect, read_all
from tests.service.load_generator import send_at_rate

BODY = b'{"queries": [{"id": "item-0"}]}'
REQUEST = POST + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def let_limit_raise(monkeypatch: pytest.MonkeyPatch, method: str, which: Iterator[bool]) -> None:
    """Let a limit refuse the requests for which there is a True, and none after them."""

    def check(self: EventLoopLimit) -> None:
        if next(which, False):
            raise build_overloaded("too many requests at once")

    monkeypatch.setattr(EventLoopLimit, method, check)


def read_answers(connection: socket.socket, n: int) -> list[bytes]:
    """The next answers, each with a length."""
    answers: list[bytes] = []
    read = b""
    while len(answers) < n:
        head, end, rest = read.partition(b"\r\n\r\n")
        if end:
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) >= length:
                answers.append(head + end + rest[:length])
                read = rest[length:]
                continue
        part = connection.recv(65536)
        assert part, read
        read += part
    assert not read
    return answers


def test_a_refusal_is_what_the_app_would_have_answered(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start(bundle.path)
    headers = {"X-Request-ID": "mine"}
    with httpx.Client(base_url=address, headers=headers) as client:
        let_limit_raise(monkeypatch, "check_iteration", iter([True]))
        by_app = client.post("/v1/search", content=BODY, headers={"Content-Type": "application/json"})
        let_limit_raise(monkeypatch, "check_arrival", iter([True]))
        early = client.post("/v1/search", content=BODY, headers={"Content-Type": "application/json"})
    assert by_app.status_code == early.status_code == 429
    assert by_app.json() == early.json()
    assert dict(by_app.headers) == dict(early.headers)
    assert early.json()["request_id"] == "mine"


def test_other_paths_and_methods_are_never_refused(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_limit_raise(monkeypatch, "check_arrival", repeat(True))
    with httpx.Client(base_url=start(bundle.path)) as client:
        assert client.post("/livez").status_code == 405
        assert client.head("/v1/search").status_code == 405
        assert client.post("/v1/search").status_code == 429


def test_a_connection_goes_on_after_a_refusal(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start(bundle.path)
    before = httpx.get(f"{address}/metrics").text
    let_limit_raise(monkeypatch, "check_arrival", iter([True, False, True, True, False, True]))
    with connect(address) as connection:
        statuses = []
        for _ in range(3):
            connection.sendall(REQUEST)
            statuses += [answer[9:12] for answer in read_answers(connection, 1)]
        # headers first, the body later
        connection.sendall(REQUEST[: -len(BODY)])
        statuses += [answer[9:12] for answer in read_answers(connection, 1)]
        connection.sendall(BODY)
        connection.sendall(REQUEST)
        statuses += [answer[9:12] for answer in read_answers(connection, 1)]
        assert statuses == [b"429", b"200", b"429", b"429", b"200"]
        connection.sendall(REQUEST.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 429 "), "and is closed where the client wants that"
    after = httpx.get(f"{address}/metrics").text

    def count(text: str) -> float:
        lines = [
            line
            for line in text.splitlines()
            if line.startswith("limen_rejected_total") and "overload" in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    assert count(after) - count(before) == 4


def test_requests_sent_together_are_answered_in_order(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start(bundle.path)
    let_limit_raise(monkeypatch, "check_arrival", iter([True, False, False, False, False]))
    with connect(address) as connection:
        marked = [REQUEST.replace(b"\r\n", b"\r\nX-Request-ID: n%d\r\n" % n, 1) for n in range(4)]
        connection.sendall(b"".join(marked))
        answers = read_answers(connection, 4)
    assert [answer[9:12] for answer in answers] == [b"429", b"200", b"200", b"200"]
    for n, answer in enumerate(answers):
        assert b"x-request-id: n%d\r\n" % n in answer


def test_refusals_take_a_bounded_part_of_the_event_loop(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(start(bundle.path).rpartition(":")[2])
    let_limit_raise(monkeypatch, "check_arrival", repeat(True))
    begun = monotonic()
    answers = send_at_rate(port, REQUEST, 0.5, connections=20)
    seconds = monotonic() - begun
    assert {answer.status for answer in answers} == {429}
    assert len(answers) <= 20 + seconds / REFUSAL_SECONDS
