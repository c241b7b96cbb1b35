"""Requests at a fixed rate over many connections, from one thread that takes little of the machine."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Answer(NamedTuple):
    """A status, and the milliseconds from the first byte sent to the last byte read."""

    status: int
    ms: float


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since = 0.0
        self._read = b""

    def send(self, request: bytes) -> None:
        self._since, self._read = time.perf_counter(), b""
        self.socket.sendall(request)

    def read_answer(self) -> Answer | None:
        """The answer once all of it is here."""
        part = self.socket.recv(1 << 20)
        assert part, "the service closed a connection"
        self._read += part
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._read[:end].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n")[0]) if at >= 0 else 0
        if len(self._read) < end + 4 + length:
            return None
        return Answer(int(head[9:12]), 1000 * (time.perf_counter() - self._since))


@contextmanager
def _open_connections(port: int, n: int) -> Iterator[list[_Connection]]:
    opened = [_Connection(port) for _ in range(n)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.socket.close()


def send_at_rate(
    port: int, request: bytes, seconds: float, *, connections: int, rate: float = float("inf")
) -> list[Answer]:
    """The answers to a request that is sent ``rate`` times a second while a connection is free.

    Without a rate every connection sends again as soon as it is answered.
    """
    answers: list[Answer] = []
    with selectors.DefaultSelector() as selector, _open_connections(port, connections) as idle:
        for connection in idle:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        idle, busy = list(idle), 0
        begun = due = time.perf_counter()
        while (now := time.perf_counter()) < begun + seconds or busy:
            while now < begun + seconds and idle and due <= now:
                idle.pop(0).send(request)
                busy += 1
                # what could not be sent in time is not made up for
                due = max(due + 1 / rate, now - 0.1)
            for key, _ in selector.select(max(0.0, due - now) if idle else 1.0):
                answer = key.data.read_answer()
                if answer is not None:
                    answers.append(answer)
                    idle.append(key.data)
                    busy -= 1
    return answers
