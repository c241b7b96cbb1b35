"""The middleware around every request: id, limits on body and load, security headers, metrics, one log line.

Plain ASGI: a request passes through one object instead of five, which is a large part of the cost of a
small request.
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
from service.telemetry.prometheus import count_rejection, observe_response

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
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
# as web servers log a request whose client left before the answer
CLIENT_CLOSED_REQUEST = 499
NO_STORE = (b"cache-control", b"no-store")
# many clients ask these at once; writes and administration need a free slot alone
LOAD_CHECKED_PATHS = frozenset({"/v1/search", "/v1/match"})


class RequestMiddleware:
    """Wraps the app. ``/v1/`` requests pass the admission queue; health, metrics and pages do not.

    ``check_load`` raises the problem ``overloaded`` for a search or match that would have to wait too long:
    before its body is read, so that refusing it costs little.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, queue: AdmissionQueue, check_load: Callable[[], None]
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.queue = queue
        self.check_load = check_load
        self._trimming: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self, scope, receive, send)
        await exchange.run()
        if exchange.received > LARGE and (self._trimming is None or self._trimming.done()):
            # a task of its own: the body is freed once the exchange is gone
            self._trimming = asyncio.create_task(trim_heap())


class _Exchange:
    """One request and its response."""

    def __init__(self, outer: RequestMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._outer = outer
        self._scope, self._receive, self._send = scope, receive, send
        self.received = 0
        self._status = 0
        self._complete = False
        self._headers = dict(scope["headers"])
        given = self._headers.get(b"x-request-id", b"")
        self._id = given if _VALID_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = self._id.decode()

    async def run(self) -> None:
        """Check the limits, have the app answer, and record the outcome."""
        start = perf_counter()
        path = self._scope["path"]
        try:
            self._check_announced_length()
            if path in LOAD_CHECKED_PATHS:
                self._outer.check_load()
            if path.startswith("/v1/"):
                async with self._outer.queue:
                    await self._call_app()
            else:
                await self._call_app()
        except ServiceProblem as problem:
            await self._send_problem(problem)
        except ClientDisconnect:
            self._status = self._status or CLIENT_CLOSED_REQUEST
        except Exception:
            logs.LOGGER.exception("request failed", extra={"fields": {"request_id": self._id.decode()}})
            if self._complete:
                return
            if self._status:
                raise
            await self._send_problem(
                ServiceProblem(INTERNAL, "The request failed; the log has it under this request_id.")
            )
        finally:
            self._record(perf_counter() - start)

    async def _call_app(self) -> None:
        await self._outer.app(self._scope, self._receive_counted, self._send_with_headers)

    def _check_announced_length(self) -> None:
        announced = self._headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._outer.max_body_bytes:
            raise self._build_too_large()

    def _build_too_large(self) -> ServiceProblem:
        return ServiceProblem(
            BODY_TOO_LARGE,
            f"The body may have {self._outer.max_body_bytes} bytes (LIMEN_MAX_BODY_BYTES); "
            "send fewer rows at once.",
        )

    async def _receive_counted(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self._outer.max_body_bytes:
                raise self._build_too_large()
        return message

    async def _send_with_headers(self, message: Message) -> None:
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

    async def _send_problem(self, problem: ServiceProblem) -> None:
        self._scope["state"]["problem"] = problem.kind.slug
        body = write_problem(
            problem.kind, problem.detail, self._scope["path"], self._id.decode(), problem.errors
        )
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        ]
        await self._send_with_headers(
            {"type": "http.response.start", "status": problem.kind.status, "headers": headers}
        )
        await self._send_with_headers({"type": "http.response.body", "body": body})

    def _record(self, seconds: float) -> None:
        """Update the metrics, and write the request's log line."""
        route = getattr(self._scope.get("route"), "path", "(none)")
        observe_response(route, self._status, seconds)
        slug = self._scope["state"].get("problem")
        if slug is not None:
            count_rejection(slug)
        if logs.is_logging_requests():
            fields: dict[str, Any] = {
                "request_id": self._id.decode(),
                "method": self._scope["method"],
                "path": self._scope["path"],
                "status": self._status,
                "ms": round(seconds * 1000, 3),
            }
            if slug is not None:
                fields["problem"] = slug
            logs.log_request(fields)
