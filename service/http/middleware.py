"""What surrounds every request: id, limits on body and load, security headers, metrics, one log line.

Plain ASGI: a request passes through one object instead of five, which is a large part of what a
small request costs.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE
from service.errors.problems import BODY_TOO_LARGE, INTERNAL, ServiceProblem, write_problem
from service.runtime.admission_queue import AdmissionQueue
from service.runtime.malloc_trim import LARGE, trim_heap
from service.telemetry import logs
from service.telemetry.prometheus import answered, rejected

_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# as web servers log it; nobody is there to be answered
CLIENT_LEFT = 499
NO_STORE = (b"cache-control", b"no-store")
# what many clients ask at once; writes and administration go through as long as there are turns
PACED = frozenset({"/v1/search", "/v1/match"})


class RequestMiddleware:
    """Wraps the app; ``/v1/`` requests pass the gate, health, metrics and pages do not.

    ``admit`` raises the problem ``overloaded`` for a search or match that would have to wait too long: before
    its body is read, so that sending it away costs little.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, gate: AdmissionQueue, admit: Callable[[], None]
    ) -> None:
        self._app = app
        self._admit = admit
        self._max_body_bytes = max_body_bytes
        self._gate = gate
        self._tidying: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._app, self._gate, self._admit, self._max_body_bytes, scope, receive, send)
        await exchange.run()
        if exchange.received > LARGE:
            self._tidy()

    def _tidy(self) -> None:
        """Give memory back once the exchange and all it held are gone."""
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(trim_heap())


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        app: ASGIApp,
        gate: AdmissionQueue,
        admit: Callable[[], None],
        max_body_bytes: int,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._app, self._gate, self._admit, self._limit = app, gate, admit, max_body_bytes
        self._scope, self._receive, self._send = scope, receive, send
        self.received = 0
        self._status = 0
        self._complete = False
        self._headers = dict(scope["headers"])
        given = self._headers.get(b"x-request-id", b"")
        self._id = given if _GOOD_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = self._id.decode()

    async def run(self) -> None:
        start = perf_counter()
        try:
            self._refuse_announced_body()
            if self._scope["path"] in PACED:
                self._admit()
            if self._scope["path"].startswith("/v1/"):
                async with self._gate:
                    await self._app(self._scope, self._counted_receive, self._dressed_send)
            else:
                await self._app(self._scope, self._counted_receive, self._dressed_send)
        except ServiceProblem as problem:
            await self._answer(problem)
        except ClientDisconnect:
            self._status = self._status or CLIENT_LEFT
        except Exception:
            logs.LOGGER.exception("request failed", extra={"fields": {"request_id": self._id.decode()}})
            if self._complete:
                return
            if self._status:
                raise
            await self._answer(
                ServiceProblem(INTERNAL, "The request failed; the log has it under this request_id.")
            )
        finally:
            self._record(perf_counter() - start)

    def _refuse_announced_body(self) -> None:
        announced = self._headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._limit:
            raise self._too_large()

    def _too_large(self) -> ServiceProblem:
        return ServiceProblem(
            BODY_TOO_LARGE,
            f"The body may have {self._limit} bytes (LIMEN_MAX_BODY_BYTES); send fewer rows at once.",
        )

    async def _counted_receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self._limit:
                raise self._too_large()
        return message

    async def _dressed_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = message["headers"] = list(message.get("headers", []))
            headers.append((b"x-request-id", self._id))
            headers.extend(SECURITY_HEADERS)
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(NO_STORE)
        elif not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    async def _answer(self, problem: ServiceProblem) -> None:
        self._scope["state"]["problem"] = problem.kind.slug
        body = write_problem(
            problem.kind, problem.detail, self._scope["path"], self._id.decode(), problem.errors
        )
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        ]
        await self._dressed_send(
            {"type": "http.response.start", "status": problem.kind.status, "headers": headers}
        )
        await self._dressed_send({"type": "http.response.body", "body": body})

    def _record(self, seconds: float) -> None:
        route = getattr(self._scope.get("route"), "path", "(none)")
        answered(route, self._status, seconds)
        slug = self._scope["state"].get("problem")
        if slug is not None:
            rejected(slug)
        if logs.wants_requests():
            fields: dict[str, Any] = {
                "request_id": self._id.decode(),
                "method": self._scope["method"],
                "path": self._scope["path"],
                "status": self._status,
                "ms": round(seconds * 1000, 3),
            }
            if slug is not None:
                fields["problem"] = slug
            logs.request(fields)
