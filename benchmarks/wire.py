"""A server process, and prepared requests sent over one kept connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OCTETS, JSON = "application/octet-stream", "application/json"


def write_server_program(path: Path) -> str:
    """The Python program that serves a bundle as `limen serve` does."""
    return (
        f"import sys; sys.argv = ['limen', 'serve', '{path}', '--port', 'PORT']; "
        "from limen.cli.main import main; main()"
    )


@contextmanager
def start_server(call: str, ready: bytes, environment: dict[str, str]) -> Iterator[socket.socket]:
    """A server process, and a connection to it once the request ``ready`` is answered without error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", call.replace("PORT", str(port))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | environment)
    try:
        while True:
            time.sleep(0.2)
            try:
                to = socket.create_connection(("127.0.0.1", port))
                to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                send(to, ready)
                break
            except (ConnectionError, AssertionError):
                assert process.poll() is None, call
        with to:
            yield to
    finally:
        process.terminate()
        process.wait()


def build_request(method: str, path: str, body: bytes = b"", kind: str = OCTETS, accept: str = JSON) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Accept: {accept}"]
    lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""])
    return head.encode() + body


def read_status(to: socket.socket, what: bytes) -> int:
    """Send a request and read the whole answer; returns its status."""
    to.sendall(what)
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += to.recv(1 << 20)
    head = answer[:end].lower()
    at = head.find(b"content-length: ")
    missing = end + 4 - len(answer) + (0 if at < 0 else int(head[at + 16 :].split(b"\r\n")[0]))
    while missing > 0:
        missing -= len(to.recv(1 << 20))
    return int(head[9:12])


def send(to: socket.socket, what: bytes, *expected: int) -> None:
    """Send a request and read the whole answer; its status must be expected, 200 or 204 unless given."""
    received = read_status(to, what)
    assert received in (expected or (200, 204)), received
