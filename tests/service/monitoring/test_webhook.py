"""The webhook: signed, tried again, bounded, never followed elsewhere."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.monitoring.webhook import SIGNATURE_HEADER, Webhook, sign_body

SECRET = b"a secret that both know"
ROOT = Path(__file__).resolve().parents[3]


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers with the statuses given, the last one again and again."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses) or [200]
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/alerts"

    def wait_for(self, n: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.received) >= n, timeout=60)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses[min(len(self.server.received), len(self.server.statuses) - 1)]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()
        with self.server.arrived:
            self.server.received.append((dict(self.headers), body))
            self.server.arrived.notify_all()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Nothing."""


@contextmanager
def receive(*statuses: int) -> Iterator[Receiver]:
    server = Receiver(*statuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_hook(url: str, attempts: int = 3, queue: int = 8) -> Webhook:
    return Webhook(url, SECRET, timeout=10, attempts=attempts, queue=queue, pause=0.01)


def find_documented_check() -> Any:
    """The function that the guide tells receivers to use."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    (code,) = [
        part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def is_genuine" in part
    ]
    names: dict[str, Any] = {}
    exec(code, names)
    return names["is_genuine"]


def test_a_receiver_can_check_the_signature_as_the_guide_says() -> None:
    is_genuine = find_documented_check()
    with receive() as receiver:
        hook = make_hook(receiver.url)
        hook.send({"type": "alert.firing", "alert": {"rule": "query-drift"}})
        receiver.wait_for(1)
        hook.close()
    headers, body = receiver.received[0]
    assert json.loads(body) == {"type": "alert.firing", "alert": {"rule": "query-drift"}}
    assert headers["Content-Type"] == "application/json"
    signature = headers[SIGNATURE_HEADER]
    assert is_genuine(SECRET, signature, body)
    assert not is_genuine(SECRET, signature, body + b" ")
    assert not is_genuine(b"another secret of theirs", signature, body)
    assert not is_genuine(SECRET, sign_body(SECRET, 1_000_000_000, body), body), "too old"
    assert not is_genuine(SECRET, "nonsense", body)
    assert hook.delivered == 1


def test_a_failed_delivery_is_tried_again_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with receive(500, 503, 200) as receiver:
        hook = make_hook(receiver.url)
        hook.send({"n": 1})
        receiver.wait_for(3)
        hook.close()
    assert (hook.delivered, hook.failed) == (1, 0)
    assert len({body for _, body in receiver.received}) == 1
    with receive(500) as receiver:
        hook = make_hook(receiver.url)
        hook.send({"n": 1})
        hook.send({"n": 2})
        receiver.wait_for(6)
        hook.close()
    assert (hook.delivered, hook.failed) == (0, 2)
    assert SECRET.decode() not in caplog.text


def test_redirects_are_not_followed() -> None:
    with receive(302) as receiver:
        hook = make_hook(receiver.url, attempts=1)
        hook.send({"n": 1})
        receiver.wait_for(1)
        hook.close()
    assert (hook.delivered, hook.failed) == (0, 1)
    assert len(receiver.received) == 1


def test_a_receiver_that_is_away_costs_its_own_alerts_alone() -> None:
    hook = make_hook("http://127.0.0.1:9/nobody", attempts=1_000, queue=4)
    for number in range(20):
        hook.send({"n": number})
    assert hook.queued <= 4
    assert hook.failed >= 15
    hook.close()
