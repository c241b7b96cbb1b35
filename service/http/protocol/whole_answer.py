"""Answers that are sent in one piece: head and body in one packet, by one call of the operating system.

uvicorn sends the head by itself. The second call, and waking the client twice, takes as long as finding a
near item.
"""

from __future__ import annotations

from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

_LENGTH = b"content-length"
_OF_THE_CONNECTION = (b"connection", b"transfer-encoding")


class WholeAnswer:
    """The app for one request: keeps the head of its answer until the body is here, and sends both at once.

    An answer in parts, one without a length and the last of a connection are sent by uvicorn as ever.
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle
        self._start: Message | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
            return
        start, self._start = self._start, None
        cycle = self._cycle
        if start is not None:
            answer = _join(start, message, cycle)
            if answer is not None:
                _finish(answer, cycle)
                return
            await cycle.send(start)  # type: ignore[arg-type]
        await cycle.send(message)  # type: ignore[arg-type]


def _join(start: Message, message: Message, cycle: RequestResponseCycle) -> bytes | None:
    """Head and body of an answer; None where uvicorn must send it."""
    if (
        message["type"] != "http.response.body"
        or message.get("more_body", False)
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.access_log
        or not cycle.keep_alive
        or cycle.scope["method"] == "HEAD"
    ):
        return None
    body: bytes = message.get("body", b"")
    parts, length = [STATUS_LINE[start["status"]]], b""
    for name, value in (*cycle.default_headers, *start.get("headers", ())):
        if name in _OF_THE_CONNECTION:
            return None
        if name == _LENGTH:
            length = value
        parts.append(_write_header(name, value))
    if length != b"%d" % len(body):
        return None
    parts += [b"\r\n", body]
    return b"".join(parts)


def _finish(answer: bytes, cycle: RequestResponseCycle) -> None:
    """What uvicorn does with the last part of an answer."""
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(answer)
    cycle.message_event.set()
    cycle.on_response()


@lru_cache(maxsize=256)
def _write_header(name: bytes, value: bytes) -> bytes:
    """The line of a header; raises RuntimeError for one that would break the head."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header.")
    return name.lower() + b": " + value + b"\r\n"
