"""Connections that are many, idle, slow or wide: bounded before a key is looked at; others are served."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

from common.time_budget import check_time
from service.auth.api_keys import create_key
from tests.service.bad_bodies import JSON

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def connect(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def read_problem(answer: bytes) -> dict[str, Any]:
    """The problem document of a raw answer."""
    problem: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return problem


def read_answer(connection: socket.socket) -> bytes:
    """One small answer on a connection that stays open."""
    answer = b""
    while b"}" not in answer:
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Wide: " + b"x" * 1_000_000,
        b"GET /livez?" + b"x" * 1_000_000,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: x\r\n" * 100_000,
        b"GET /livez HTTP/1.1\r\n" + b"x" * 1_000_000,
    ],
    ids=["a wide header", "a wide path", "many headers", "a wide name"],
)
def test_headers_are_bounded(address: str, head: bytes) -> None:
    with connect(address) as connection:
        with suppress(OSError):
            connection.sendall(head)
        answer = read_all(connection)
    # the rest of the head may reset the connection before the answer is read
    if answer:
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
        assert "LIMEN_MAX_HEADER_BYTES" in read_problem(answer)["detail"]
    assert httpx.get(f"{address}/livez").status_code == 200


def test_headers_up_to_the_limit_are_read_and_one_byte_more_is_not(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_header_bytes=4096)
    with connect(address) as connection:
        for extra, status in ((0, b"200"), (1, b"431")):
            head = GET[:-2] + b"X-Wide: " + b"x" * (4096 + extra - len(GET) - 10) + b"\r\n\r\n"
            assert len(head) == 4096 + extra
            connection.sendall(head)
            assert read_answer(connection).split(b" ")[1] == status


def test_trailers_and_chunk_sizes_are_bounded(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_header_bytes=4096)
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    for tail in (
        b"1\r\n{\r\n0\r\n" + b"X-Trailer: x\r\n" * 5_000,
        b"1;" + b"x" * 60_000,
    ):
        with connect(address) as connection:
            connection.sendall(head)
            time.sleep(0.05)
            try:
                for begin in range(0, len(tail), 8192):
                    connection.sendall(tail[begin : begin + 8192])
                    time.sleep(0.01)
            except OSError:
                pass
            read_all(connection)
    with connect(address) as connection:
        body = b'{"queries": [{"id": "item-0"}]}'
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body * 1) + b"0\r\nX-Trailer: kept out\r\n\r\n"
        connection.sendall(head + chunks)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_headers_that_do_not_come_are_given_up(start: Any, bundle: Any) -> None:
    address = start(bundle.path, header_timeout=0.3)
    with ExitStack() as stack:
        silent, begun, kept, piped = (stack.enter_context(connect(address)) for _ in range(4))
        begun.sendall(GET[:20])
        kept.sendall(GET)
        read_answer(kept)
        piped.sendall(GET + GET[:20])
        assert read_all(silent) == b"", "nothing was asked"
        assert read_all(begun).startswith(b"HTTP/1.1 408 ")
        answers = read_all(piped)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answers
        kept.sendall(GET)
        assert read_answer(kept).startswith(b"HTTP/1.1 200 "), "an idle connection is kept for longer"


def test_the_longest_idle_connection_makes_room(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_connections_per_address=20)
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(address)) for _ in range(60)]
        for connection in idle[-5:]:
            connection.sendall(GET)
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert read_all(idle[0]) == b""
        for _ in range(30):
            assert httpx.get(f"{address}/livez").status_code == 200


def test_the_slowest_body_makes_room_where_no_connection_is_idle(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_connections=8)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(address)) for _ in range(8)]
        for connection in slow:
            connection.sendall(POST + b"Content-Length: 100000\r\n\r\n{")
            time.sleep(0.02)
        assert httpx.get(f"{address}/livez").status_code == 200
        assert read_all(slow[0]) == b""


def test_where_every_connection_is_being_answered_one_more_is_refused(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def search(*_: object) -> list[object]:
        begun.release()
        go.wait(60)
        return []

    monkeypatch.setattr("service.routers.search._search", search)
    address = start(bundle.path, max_connections=2, threads=2)
    body = b'{"queries": [{"id": "item-0"}], "exact": true}'
    try:
        with connect(address) as one, connect(address) as two:
            for connection in (one, two):
                connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert begun.acquire(timeout=60)
            assert begun.acquire(timeout=60)
            with connect(address) as late:
                answer = read_all(late)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert "LIMEN_MAX_CONNECTIONS" in read_problem(answer)["detail"]
            go.set()
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        go.set()


def test_slow_bodies_of_one_key_do_not_send_others_away(start: Any, bundle: Any, tmp_path: Any) -> None:
    file = tmp_path / "keys.json"
    slow_key, other_key = create_key(file, "slow", "read"), create_key(file, "other", "read")
    address = start(bundle.path, api_keys_file=file, max_inflight=4, max_inflight_per_client=3, max_queue=4)
    authorization = b"Authorization: Bearer " + slow_key.encode() + b"\r\n"
    with ExitStack() as stack:
        for _ in range(30):
            slow = stack.enter_context(connect(address))
            slow.sendall(POST + authorization + b"Content-Length: 100000\r\n\r\n{")
        time.sleep(0.3)
        headers = {**JSON, "Authorization": f"Bearer {other_key}"}
        for _ in range(5):
            answer = httpx.post(
                f"{address}/v1/search", headers=headers, content='{"queries": [{"id": "item-0"}]}', timeout=60
            )
            assert answer.status_code == 200, answer.text


def test_small_slow_bodies_take_no_slot(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_inflight=2, max_queue=0)
    with ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(connect(address))
            slow.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        time.sleep(0.2)
        answer = httpx.post(f"{address}/v1/search", headers=JSON, content='{"queries": [{"id": "item-0"}]}')
        assert answer.status_code == 200, answer.text


def test_a_body_that_comes_too_slowly_is_given_up(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.middleware.GRACE", 0.3)
    address = start(bundle.path, min_body_rate=1_000_000)
    with connect(address) as connection:
        connection.sendall(POST + b"Content-Length: 100000\r\n\r\n{")
        for _ in range(100):
            try:
                connection.sendall(b" " * 10)
            except OSError:
                break
            time.sleep(0.02)
        answer = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 408 ")
    if answer:
        assert "LIMEN_MIN_BODY_RATE" in read_problem(answer)["detail"]
    assert httpx.get(f"{address}/livez").status_code == 200


def test_an_answer_that_is_not_taken_is_dropped(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.protocol.connections._UNSENT_SECONDS", 0.2)
    address = start(bundle.path, max_queries=10_000, min_body_rate=100_000_000, max_inflight=1, max_queue=0)
    queries = ",".join(['{"id": "item-0"}'] * 1_000)  # 13 MB of answer
    body = f'{{"queries": [{queries}], "k": 100}}'.encode()
    with connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 60
        while httpx.get(f"{address}/v1/info").status_code == 429:
            assert time.monotonic() < deadline, "a slot is not held for a client that does not read"
            time.sleep(0.05)
    whole = httpx.post(f"{address}/v1/search", headers=JSON, content=body, timeout=60)
    assert len(whole.json()["results"]) == 1_000


def test_work_for_a_client_that_has_gone_is_given_up(
    start: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def search_long(*given: Any) -> Any:
        begun.set()
        try:
            while True:
                check_time()
                time.sleep(0.001)
        finally:
            ended.set()

    monkeypatch.setattr("service.routers.search._search", search_long)
    address = start(bundle.path)
    body = b'{"queries": [{"id": "item-0"}], "exact": true}'
    with connect(address) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert begun.wait(60)
    assert ended.wait(20), "before the deadline"
    deadline = time.monotonic() + 60
    given_up = re.compile(r'limen_http_requests_total\{code="499",.*route="/v1/search"')
    while not given_up.search(httpx.get(f"{address}/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.02)
