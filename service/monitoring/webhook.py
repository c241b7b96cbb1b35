"""Alerts sent to a URL as signed JSON, from a thread of their own: what decides never waits for it.

The header ``Limen-Signature: t=<seconds>,v1=<hex>`` holds HMAC-SHA256, under the shared secret, of the time,
a full stop and the body; a receiver compares it in constant time and refuses an old time.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections import deque
from threading import Condition, Event, Thread
from time import time
from typing import Any

import httpx
import orjson

from service.telemetry.logs import LOGGER
from service.telemetry.prometheus import WEBHOOK

SIGNATURE_HEADER = "Limen-Signature"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


def sign_body(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of the signature's header."""
    digest = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Webhook:
    """Deliveries of one receiver, in order; a delivery that fails is tried again after a growing pause.

    Only answers 2xx count as received. Redirects are not followed: the body goes where it was meant to go.

    Args:
        url: of the receiver.
        secret: that both know; it is never logged.
        timeout: seconds of one attempt.
        attempts: at one delivery.
        queue: deliveries that may wait; the oldest goes when there are more.
        pause: seconds before the second attempt, doubled for each further one.
    """

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        timeout: float,
        attempts: int,
        queue: int,
        pause: float = FIRST_PAUSE,
    ) -> None:
        self._url, self._secret = url, secret
        self._timeout, self._attempts, self._most, self._pause = timeout, attempts, queue, pause
        self._waiting: deque[bytes] = deque()
        self._changed = Condition()
        self._closing = Event()
        self._thread: Thread | None = None
        self.delivered = self.failed = 0

    @property
    def queued(self) -> int:
        """Deliveries that wait."""
        return len(self._waiting)

    def send(self, payload: dict[str, Any]) -> None:
        """Queue a delivery; returns at once."""
        with self._changed:
            if self._closing.is_set():
                return
            if self._thread is None:
                self._thread = Thread(target=self._run, name="webhook", daemon=True)
                self._thread.start()
            self._waiting.append(orjson.dumps(payload))
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self._count("dropped", "the queue is full")
            self._changed.notify()

    def close(self, wait: float = 2.0) -> None:
        """Try what waits once more, for some seconds at most."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(wait)

    def _run(self) -> None:
        with httpx.Client(timeout=self._timeout, follow_redirects=False) as client:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                    if not self._waiting:
                        return
                    body = self._waiting.popleft()
                self._deliver(client, body)

    def _deliver(self, client: httpx.Client, body: bytes) -> None:
        why = ""
        for attempt in range(self._attempts):
            timestamp = int(time())
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "limen",
                SIGNATURE_HEADER: sign_body(self._secret, timestamp, body),
            }
            try:
                with client.stream("POST", self._url, content=body, headers=headers) as response:
                    if response.is_success:
                        self._count("delivered")
                        return
                    why = f"it answered {response.status_code}"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = type(error).__name__
            if self._closing.is_set():
                break
            # full jitter, so that receivers that were away are not met by all senders at once
            pause = min(LONGEST_PAUSE, self._pause * 2**attempt)
            if attempt + 1 < self._attempts:
                self._closing.wait(pause * random.uniform(0.5, 1.0))
        self._count("failed", why)

    def _count(self, outcome: str, why: str = "") -> None:
        WEBHOOK.labels(outcome).inc()
        if outcome == "delivered":
            self.delivered += 1
            return
        self.failed += 1
        LOGGER.warning("an alert was not delivered to the webhook", extra={"fields": {"reason": why}})
