"""``Idempotency-Key``: a write that is sent again, because its answer was lost, is carried out once."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import LimenError
from index.store.idempotency import IdempotencyKey, Reply
from index.store.service_records import ServiceRecords
from service.errors.problems import (
    CONFLICT,
    INVALID_REQUEST,
    KEY_REUSED,
    ServiceProblem,
    to_service_problem,
)

HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
WRITES = frozenset({"POST", "PUT", "DELETE"})
JOB_ACCEPTED = 202  # it writes nothing by itself, and is not to be queued twice
MOST_ANSWER = 1 << 16  # bytes of an answer that are kept
WAIT, LOOK_EVERY = 2.0, 0.05  # seconds for the same write that is being carried out elsewhere
_FORM = re.compile(rb"[\x21-\x7e]{1,255}")


class IdempotentWrites:
    """ASGI app that answers a write with a known key as before, and passes everything else on.

    Args:
        app: what answers.
        find_records: of the model that answers now; None where nothing is kept.
        name_owner: whose key it is: those of two clients have nothing to do with each other.
    """

    def __init__(
        self,
        app: ASGIApp,
        find_records: Callable[[Scope], ServiceRecords | None],
        name_owner: Callable[[Scope], str],
    ) -> None:
        self._app, self._find_records, self._name_owner = app, find_records, name_owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == HEADER), None)
        records = None if given is None or scope["method"] not in WRITES else self._find_records(scope)
        if given is None or records is None:
            await self._app(scope, receive, send)
            return
        if not _FORM.fullmatch(given):
            raise ServiceProblem(
                INVALID_REQUEST, "Idempotency-Key: send 1 to 255 visible ASCII characters, such as a UUID."
            )
        messages = await _read_all(receive)
        key = self._make_key(scope, given, messages)
        reply = await _look_up(records, key)
        if reply is None:
            scope["state"]["idempotency_key"] = key
            answer = await self._carry_out(scope, messages)
            if not key.is_known:
                await self._keep_answer(records, key, answer)
                for message in answer:
                    await send(message)
                return
        await _send_reply(await _wait_for_answer(records, key), send)

    def _make_key(self, scope: Scope, given: bytes, messages: list[Message]) -> IdempotencyKey:
        owner = self._name_owner(scope).encode()
        line = [scope["method"].encode(), scope["raw_path"], scope["query_string"], b""]
        asked = hashlib.sha256(b"\n".join(line))
        for message in messages:
            asked.update(message.get("body", b""))
        return IdempotencyKey(hashlib.sha256(owner + b"\0" + given).hexdigest(), asked.hexdigest())

    async def _carry_out(self, scope: Scope, messages: list[Message]) -> list[Message]:
        answer: list[Message] = []
        left = iter(messages)

        async def replay() -> Message:
            return next(left, None) or await _wait_for_end()

        async def collect(message: Message) -> None:
            answer.append(message)

        await self._app(scope, replay, collect)
        return answer

    async def _keep_answer(self, records: ServiceRecords, key: IdempotencyKey, answer: list[Message]) -> None:
        status = answer[0]["status"]
        body = b"".join(message.get("body", b"") for message in answer[1:])
        if (key.is_kept or status == JOB_ACCEPTED) and len(body) <= MOST_ANSWER:
            try:
                await asyncio.to_thread(records.keep_answer, key, status, body)
            except LimenError:
                return  # the write is carried out, and its key is known: it is not carried out again


async def _look_up(records: ServiceRecords, key: IdempotencyKey) -> Reply | None:
    """What is known of a key; raises the problem ``key-reused`` (422) if it came with another request."""
    try:
        reply = await asyncio.to_thread(records.read_reply, key.key)
    except LimenError as error:
        raise to_service_problem(error) from error
    if reply is not None and reply.request != key.request:
        raise ServiceProblem(
            KEY_REUSED,
            "This Idempotency-Key came with another request before: send a new key with every new write.",
        )
    return reply


async def _wait_for_answer(records: ServiceRecords, key: IdempotencyKey) -> Reply:
    """The kept answer; raises the problem ``conflict`` (409) where there is none within two seconds."""
    end = monotonic() + WAIT
    while True:
        reply = await _look_up(records, key)
        if reply is not None and reply.status is not None:
            return reply
        if monotonic() > end:
            raise ServiceProblem(
                CONFLICT,
                "The write with this Idempotency-Key was carried out, and its answer is not kept (yet): it "
                "is not carried out again. Read what it changed.",
                headers={"Retry-After": "1"},
            )
        await asyncio.sleep(LOOK_EVERY)


async def _send_reply(reply: Reply, send: Send) -> None:
    assert reply.status is not None
    body = reply.body or b""
    kind = b"application/json" if reply.status < 400 else b"application/problem+json"
    headers = [(b"content-length", str(len(body)).encode()), REPLAYED]
    if body:
        headers.append((b"content-type", kind))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_all(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


async def _wait_for_end() -> Message:
    """The client is waited for no longer: a write with a key may end without it."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}
