"""Clients over HTTP where ``wrk`` is not at hand: threads that send prepared bytes and read whole answers.

SIZES=FILE BODIES=FILE python -m benchmarks.peers.http_clients PORT CLIENTS SECONDS
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path

from benchmarks.peers.client_load import measure_calls
from benchmarks.wire import send


class Connection:
    """A kept connection that answers with bodies."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The body of a successful answer."""
        self._socket.sendall(request)
        answer = bytearray()
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head = bytes(answer[:end]).lower()
        if not head.startswith((b"http/1.1 200", b"http/1.1 201", b"http/1.1 204")):
            raise RuntimeError(bytes(answer[:500]).decode(errors="replace"))
        at = head.find(b"content-length: ")
        length = 0 if at < 0 else int(head[at + 16 :].split(b"\r\n")[0])
        while len(answer) < end + 4 + length:
            answer += self._receive()
        return bytes(answer[end + 4 :])

    def _receive(self) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def close(self) -> None:
        """End it."""
        self._socket.close()


def main(port: int, clients: int, seconds: float) -> None:
    """Send the prepared requests in turns and print what clients saw."""
    sizes = [int(line) for line in Path(os.environ["SIZES"]).read_text().split()]
    with Path(os.environ["BODIES"]).open("rb") as file:
        requests = [file.read(size) for size in sizes]
    own = threading.local()

    def call(number: int) -> None:
        if not hasattr(own, "to"):
            own.to = socket.create_connection(("127.0.0.1", port))
            own.to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send(own.to, requests[number % len(requests)])

    print(json.dumps(measure_calls(call, clients, seconds)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
