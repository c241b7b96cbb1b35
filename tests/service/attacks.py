"""What a hostile client can send, one attack by name: ``python -m tests.service.attacks NAME PORT SECONDS``.

Each prints how often each status came, as JSON; a connection that was closed without an answer counts as
"closed". They are bounded in time and in what they send, and run in a process of their own.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import cycle

HEAD = b"%s HTTP/1.1\r\nHost: localhost\r\n"
SEARCH, MATCH, ITEMS = b"POST /v1/search", b"POST /v1/match", b"PUT /v1/items"
KIND = b"Content-Type: application/%s\r\n"
CLOSED = "closed"


def build_request(line: bytes, body: bytes, kind: bytes = b"json") -> bytes:
    """The bytes of a request with this body."""
    return HEAD % line + KIND % kind + b"Content-Length: %d\r\n\r\n" % len(body) + body


def build_chunked(line: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a request whose length is not announced."""
    yield HEAD % line + KIND % b"json" + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def connect(port: int, timeout: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def read_status(connection: socket.socket, drain: bool = True) -> str:
    """The status of an answer, which is read to its end or not."""
    with suppress(OSError):
        answer = connection.recv(65536)
        if answer:
            while drain and len(connection.recv(1 << 20)) == 1 << 20:
                pass
            return answer[9:12].decode()
    return CLOSED


def send_from_threads(
    port: int, seconds: float, requests: list[bytes], *, threads: int = 8, drain: bool = False
) -> Counter[str]:
    """Send the requests in turn, each on a connection of its own, as fast as they are answered."""
    statuses: Counter[str] = Counter()
    end = time.monotonic() + seconds
    turns, lock = cycle(requests), threading.Lock()

    def send() -> None:
        while time.monotonic() < end:
            with lock:
                request = next(turns)
            status = CLOSED
            with suppress(OSError), connect(port) as connection:
                with suppress(OSError):
                    connection.sendall(request)
                status = read_status(connection, drain)
            with lock:
                statuses[status] += 1

    workers = [threading.Thread(target=send) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return statuses


def trickle(port: int, seconds: float, begin: bytes, connections: int) -> Counter[str]:
    """Hold connections that send a byte now and then; what is closed is opened again."""
    statuses: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        held: list[socket.socket] = []
        while time.monotonic() < end:
            while len(held) < connections and time.monotonic() < end:
                try:
                    connection = stack.enter_context(connect(port))
                    connection.sendall(begin)
                except OSError:
                    statuses[CLOSED] += 1
                    break
                connection.setblocking(False)
                held.append(connection)
            for connection in list(held):
                try:
                    answer = connection.recv(65536)
                    statuses[answer[9:12].decode() if answer else CLOSED] += 1
                    held.remove(connection)
                    connection.close()
                except BlockingIOError:
                    with suppress(OSError):
                        connection.send(b"x")
                except OSError:
                    statuses[CLOSED] += 1
                    held.remove(connection)
                    connection.close()
            time.sleep(0.2)
    return statuses


def attack_slow_headers(port: int, seconds: float) -> Counter[str]:
    """Headers that never end, on more connections than one address may have."""
    return trickle(port, seconds, HEAD % b"GET /livez" + b"X-Slow: ", 700)


def attack_slow_bodies(port: int, seconds: float) -> Counter[str]:
    """Large bodies that come a byte at a time, more than may be in progress and wait together."""
    begin = HEAD % SEARCH + KIND % b"json" + b"Content-Length: 9000000\r\n\r\n{"
    return trickle(port, seconds, begin, 250)


def attack_idle(port: int, seconds: float) -> Counter[str]:
    """Connections that ask nothing."""
    return trickle(port, seconds, b"", 700)


def attack_wide_headers(port: int, seconds: float) -> Counter[str]:
    """Headers and paths of 8 MB, and bodies in chunks of one byte with trailers."""
    wide = b"x" * 8_000_000
    requests = [
        HEAD % b"GET /livez" + b"X-Wide: " + wide,
        b"GET /livez?" + wide,
        HEAD % b"GET /livez" + b"X-Many: x\r\n" * 700_000,
        HEAD % SEARCH
        + KIND % b"json"
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
        + b"X-Trailer: x\r\n" * 500_000,
    ]
    return send_from_threads(port, seconds, requests)


def attack_wide_bodies(port: int, seconds: float) -> Counter[str]:
    """Bodies with a problem in every element, more elements than allowed, or rows without end."""
    bodies = [
        b'{"queries": [' + b"{}," * 2_500_000 + b"{}]}",
        b'{"queries": [' + b'{"vector": ["x"]},' * 600_000 + b"{}]}",
        b'{"queries": [{"vector": [' + b"1," * 4_000_000 + b"1]}]}",
        b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}",
        b'{"queries": [{"id": "item-0", ' + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}]}",
        b'{"queries": ["' + b'\\"' * 4_000_000 + b'"]}',
    ]
    requests = [build_request(SEARCH, body) for body in bodies]
    requests += [build_request(ITEMS, bodies[0].replace(b"queries", b"items"))]
    return send_from_threads(port, seconds, requests)


def attack_deep(port: int, seconds: float) -> Counter[str]:
    """Lists, objects and filters within each other."""
    bodies = [
        b'{"queries": [' + b"[" * 6_000_000,
        b'{"queries": [{"id": "item-0"}], "filter": ' + b'{"$not":' * 60 + b"{}" + b"}" * 60 + b"}",
        b'{"queries": [{"id": "item-0"}], "filter": ' + b'{"a":' * 500_000,
        b'{"queries": [{"vector": [' + b"[]," * 3_000_000 + b"1]}]}",
    ]
    return send_from_threads(port, seconds, [build_request(SEARCH, body) for body in bodies])


def attack_filters(port: int, seconds: float) -> Counter[str]:
    """Filters that compare as much as they may, and more."""
    most = [{"camera": {"$gte": number % 3 - 1, "$lte": number % 5}} for number in range(32)]
    filters: list[object] = [
        {"$or": most},
        {"$and": [{"$not": part} for part in most]},
        {"$or": most * 100},
        {"camera": {"$nin": list(range(10_000))}},
        {"$or": [{"camera": {"$in": list(range(100_000))}}] * 8},
    ]
    bodies = [json.dumps({"queries": [{"id": "item-0"}], "filter": one}).encode() for one in filters]
    return send_from_threads(port, seconds, [build_request(MATCH, body) for body in bodies])


def attack_many(port: int, seconds: float) -> Counter[str]:
    """Connections and small requests as fast as they go, many of them in one packet."""
    small = build_request(SEARCH, b'{"queries": [{"id": "item-0"}]}')
    return send_from_threads(port, seconds, [small, small * 200, HEAD % b"GET /livez" + b"\r\n"], threads=24)


def attack_large(port: int, seconds: float) -> Counter[str]:
    """The largest bodies that are taken, announced or not, valid or not, from eight clients at once."""
    row = b'{"vector": [' + b",".join([b"0." + b"123456789" * 215] * 16) + b"]}"
    queries = b'{"queries": [' + b",".join([row] * 1000) + b"]}"
    chunked = b"".join(build_chunked(SEARCH, (b" " * 65_000 for _ in range(480))))
    requests = [
        build_request(SEARCH, queries),
        build_request(b"POST /v1/search?k=1", bytes(128 << 20), b"octet-stream"),
        build_request(b"POST /v1/search?k=1000", b"\0\0\x80\x3f" * 16_000, b"octet-stream"),
        chunked,
    ]
    return send_from_threads(port, seconds, requests)


def attack_unread(port: int, seconds: float) -> Counter[str]:
    """Large answers that are asked for and not read."""
    ids = ",".join(['{"id": "item-0"}'] * 250)
    request = build_request(SEARCH, f'{{"queries": [{ids}], "k": 300, "include": ["vector"]}}'.encode())
    end = time.monotonic() + seconds
    statuses: Counter[str] = Counter()
    with ExitStack() as stack:
        while time.monotonic() < end:
            with suppress(OSError):
                connection = stack.enter_context(connect(port))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(request)
                statuses["sent"] += 1
            time.sleep(0.02)
    return statuses


ATTACKS: dict[str, Callable[[int, float], Counter[str]]] = {
    name.removeprefix("attack_"): function
    for name, function in list(globals().items())
    if name.startswith("attack_")
}


if __name__ == "__main__":
    print(json.dumps(ATTACKS[sys.argv[1]](int(sys.argv[2]), float(sys.argv[3]))))  # noqa: T201
