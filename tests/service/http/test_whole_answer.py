"""Answers sent in one piece are byte for byte what uvicorn sends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.protocol.whole_answer import WholeAnswer

TEXT = (b"content-type", b"text/plain")


class Sent:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


def make_start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def make_body(body: bytes, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def answer(
    messages: list[Message], *, whole: bool, method: str = "GET", keep_alive: bool = True
) -> tuple[Sent, bool, int]:
    """What is sent, whether the answer is complete, and how often the connection noted that."""
    sent, completions = Sent(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async def run() -> RequestResponseCycle:
        transport = cast(Any, sent)
        scope = {"method": method, "http_version": "1.1", "path": "/", "query_string": b"", "client": None}
        cycle = RequestResponseCycle(
            scope=cast(Any, scope),
            transport=transport,
            flow=FlowControl(transport),
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=[(b"server", b"x")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=lambda: completions.append(1),
        )
        chosen: Any = WholeAnswer(app, cycle) if whole else app
        await chosen(scope, cycle.receive, cycle.send)
        return cycle

    cycle = asyncio.run(run())
    return sent, cycle.response_complete, len(completions)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(
    "messages",
    [
        [make_start(TEXT, (b"content-length", b"5")), make_body(b"hello")],
        [make_start(TEXT, (b"Content-Length", b"5")), make_body(b"hello")],
        [make_start(TEXT, (b"content-length", b"0"), status=404), make_body(b"")],
        [make_start(status=204), make_body(b"")],
        [make_start(TEXT), make_body(b"hello")],
        [make_start(TEXT), make_body(b"he", True), make_body(b"llo")],
        [make_start(TEXT, (b"content-length", b"5")), make_body(b"he", True), make_body(b"llo")],
        [make_start(TEXT, (b"content-length", b"5"), (b"connection", b"close")), make_body(b"hello")],
        [make_start(TEXT, (b"transfer-encoding", b"chunked")), make_body(b"hello")],
    ],
    ids=["whole", "capitals", "empty", "204", "no length", "parts", "parts, length", "closing", "chunked"],
)
def test_the_bytes_are_those_that_uvicorn_sends(
    messages: list[Message], method: str, keep_alive: bool
) -> None:
    ours, complete, told = answer(messages, whole=True, method=method, keep_alive=keep_alive)
    theirs, is_complete, times = answer(messages, whole=False, method=method, keep_alive=keep_alive)
    assert b"".join(ours.writes) == b"".join(theirs.writes)
    assert (ours.is_closed, complete, told) == (theirs.is_closed, is_complete, times)


def test_a_whole_answer_is_written_at_once() -> None:
    ours, _, _ = answer([make_start((b"content-length", b"5")), make_body(b"hello")], whole=True)
    assert len(ours.writes) == 1


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "messages",
    [
        [make_start((b"content-length", b"4")), make_body(b"hello")],
        [make_start((b"content-length", b"6")), make_body(b"hello")],
        [make_start((b"x", b"a\r\nset-cookie: b"), (b"content-length", b"5")), make_body(b"hello")],
        [make_start((b"x: y", b"a"), (b"content-length", b"5")), make_body(b"hello")],
        [make_start(), make_start()],
    ],
    ids=["too long", "too short", "value with a line break", "name with a colon", "two heads"],
)
def test_what_breaks_the_head_or_the_length_is_an_error(messages: list[Message], whole: bool) -> None:
    with pytest.raises(RuntimeError):
        answer(messages, whole=whole)
