"""The middleware around every request: id, limits on body and load, security headers, metrics, one log line.

Plain ASGI: a request passes through one object instead of five, which is a large part of the cost of a
small request.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE
from common.spans import SPANS, Span
from service.errors.problems import (
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    INTERNAL,
    ServiceProblem,
    build_overloaded,
    write_problem,
)
from service.runtime.admission_queue import AdmissionQueue
from service.runtime.malloc_trim import LARGE, trim_heap
from service.settings import ServiceSettings
from service.telemetry import logs
from service.telemetry.prometheus import count_rejection, observe_response
from service.telemetry.tracing import Tracer

VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# as web servers log a request whose client left before the answer
CLIENT_CLOSED_REQUEST = 499
NO_STORE = (b"cache-control", b"no-store")
# many clients ask these at once; writes and administration need a free slot alone
# seconds that any body may take
GRACE = 5.0
# bytes of a body that are read before it has a slot: the server holds as many of any connection
PREFETCHED = 1 << 16
# bytes of an answer that are sent at once
PIECE = 1 << 18
OCTETS = b"application/octet-stream"
# what is computed for nobody is given up; writes have their own rule
ABANDONED_PATHS = frozenset({"/v1/search", "/v1/match", "/v1/verify"})
NO_ROUTE = "(none)"  # of a request that no endpoint saw
LOAD_CHECKED_PATHS = frozenset({"/v1/search", "/v1/match"})


class RequestMiddleware:
    """Wraps the app. ``/v1/`` requests pass the admission queue; health, metrics and pages do not.

    Args:
        app: what answers.
        settings: the limits.
        check_load: raises the problem ``overloaded`` for a search or match that would have to wait too long:
            before its body is read, so that refusing it costs little.
        find_client: whose turn a request takes, by its key or address; raises a problem for one whose key is
            at its limit.
        check_headers: raises a problem for a request that is not answered at all.
        observe: called with the scope, route, status, seconds and problem of every answer.
        tracer: what keeps traces; None where nobody wants any.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        check_load: Callable[[], None],
        find_client: Callable[[Scope], str],
        check_headers: Callable[[Scope, Mapping[bytes, bytes]], None],
        observe: Callable[[Scope, str, int, float, str | None], None],
        tracer: Tracer | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.check_load, self.find_client, self.check_headers = check_load, find_client, check_headers
        self.observe = observe
        self.tracer = tracer
        self.wants_spans = tracer is not None or settings.slow_query is not None
        self.queue = AdmissionQueue(
            settings.max_inflight, settings.max_queue, settings.deadline, settings.max_inflight_per_client
        )
        # bytes of bodies and large answers in memory
        self.buffered = 0
        self._trimming: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            # answered as GET; the server leaves out the body
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(self, scope, receive, send)
        await exchange.run()
        if exchange.received > LARGE and (self._trimming is None or self._trimming.done()):
            # a task of its own: the body is freed once the exchange is gone
            self._trimming = asyncio.create_task(trim_heap())


class _Exchange:
    """One request and its response."""

    def __init__(self, outer: RequestMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._outer, self._settings = outer, outer.settings
        self._scope, self._receive, self._send = scope, receive, send
        self.received = 0
        self._seconds_received = 0.0
        self._prefetched: Message | None = None
        self._answered_bytes = 0
        self._start: Message | None = None
        self._status = 0
        self._complete = self._is_abandoned = False
        self._headers = dict(scope["headers"])
        given = self._headers.get(b"x-request-id", b"")
        self._most, self._limiting = self._find_body_limit()
        self._id = given if VALID_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = self._id.decode()

    async def run(self) -> None:
        """Check the limits, have the app answer, and record the outcome."""
        start = perf_counter()
        spans: list[Span] = []
        if self._outer.wants_spans:
            SPANS.set(spans)
        path = self._scope["path"]
        task = asyncio.current_task()
        assert task is not None
        if path in ABANDONED_PATHS:
            self._scope["state"]["on_disconnect"] = partial(self._abandon, task)
        try:
            self._outer.check_headers(self._scope, self._headers)
            length = self._check_announced_length()
            if path in LOAD_CHECKED_PATHS:
                self._outer.check_load()
            if path.startswith("/v1/"):
                client = self._outer.find_client(self._scope)
                if 0 < length <= PREFETCHED:
                    # a small body may be slow without holding a slot
                    await self._prefetch()
                async with self._outer.queue.admit(client):
                    await self._call_app()
            else:
                await self._call_app()
        except ServiceProblem as problem:
            await self._send_problem(problem)
        except ClientDisconnect:
            self._status = self._status or CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:
            if not self._is_abandoned:
                raise
            task.uncancel()
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
            self._outer.buffered -= self.received + self._answered_bytes
            self._record(start, perf_counter(), spans)

    def _abandon(self, task: asyncio.Task[None]) -> None:
        """Give up a request whose client has gone."""
        if not task.done():
            self._is_abandoned = True
            task.cancel()

    async def _call_app(self) -> None:
        await self._outer.app(self._scope, self._receive_counted, self._send_with_headers)

    def _check_announced_length(self) -> int:
        """The announced length of the body; 0 where none is announced."""
        announced = self._headers.get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > 15 or int(announced) > self._most:
            raise self._build_too_large()
        return int(announced)

    def _find_body_limit(self) -> tuple[int, str]:
        """The bytes that the body may have, and the setting that says so."""
        settings = self._settings
        if settings.max_json_bytes < settings.max_body_bytes and OCTETS not in self._headers.get(
            b"content-type", b""
        ):
            return settings.max_json_bytes, "LIMEN_MAX_JSON_BYTES"
        return settings.max_body_bytes, "LIMEN_MAX_BODY_BYTES"

    def _build_too_large(self) -> ServiceProblem:
        return ServiceProblem(
            BODY_TOO_LARGE,
            f"The body may have {self._most} bytes ({self._limiting}); send fewer rows at once.",
        )

    async def _prefetch(self) -> None:
        message = await self._receive_counted()
        parts = [message.get("body", b"")]
        while message.get("more_body", False):
            message = await self._receive_counted()
            parts.append(message.get("body", b""))
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._prefetched = {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def _receive_counted(self) -> Message:
        """The next part of the body; raises a problem for one that is too large or too slow."""
        if self._prefetched is not None:
            message, self._prefetched = self._prefetched, None
            return message
        settings, start = self._settings, perf_counter()
        allowed = min(settings.deadline, GRACE + self.received / settings.min_body_rate)
        try:
            async with asyncio.timeout(max(0.0, allowed - self._seconds_received)):
                message = await self._receive()
        except TimeoutError:
            raise ServiceProblem(
                BODY_TIMEOUT,
                f"{self.received} bytes of the body arrived within {allowed:.3g} s; it must come at "
                f"{settings.min_body_rate} bytes a second (LIMEN_MIN_BODY_RATE) and within "
                f"{settings.deadline:g} s (LIMEN_DEADLINE).",
                headers={"Connection": "close"},
            ) from None
        self._seconds_received += perf_counter() - start
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.received += size
            self._outer.buffered += size
            if self.received > self._most:
                raise self._build_too_large()
            if self.received > PREFETCHED and self._outer.buffered > settings.max_buffered_bytes:
                raise build_overloaded("too many large bodies at once")
        return message

    async def _send_with_headers(self, message: Message) -> None:
        """Send a part of the answer; large ones in pieces, which the client must take before more follow."""
        if self._complete:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            start, self._start = self._start, None
            if len(body) > PIECE and not self._reserve_answer(len(body)):
                await self._send_problem(build_overloaded("too many large answers at once"))
                return
            self._status = start["status"]
            headers = start["headers"] = list(start.get("headers", []))
            headers.append((b"x-request-id", self._id))
            headers.extend(SECURITY_HEADERS)
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(NO_STORE)
            await self._send(start)
        self._complete = not more
        if len(body) <= PIECE:
            await self._send(message)
            return
        with memoryview(body) as view:
            for begin in range(0, len(body), PIECE):
                part = bytes(view[begin : begin + PIECE])
                last = begin + PIECE >= len(body)
                await self._send({"type": "http.response.body", "body": part, "more_body": more or not last})

    def _reserve_answer(self, size: int) -> bool:
        """Whether a large answer may be kept until the client has taken it."""
        others = self._outer.buffered - self.received
        if others > 0 and others + size > self._settings.max_buffered_bytes:
            return False
        self._outer.buffered += size
        self._answered_bytes = size
        return True

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

    def _record(self, start: float, end: float, spans: list[Span]) -> None:
        """Update the metrics, and write the request's log line; its trace, if anybody wants it."""
        seconds = end - start
        route = getattr(self._scope.get("route"), "path", NO_ROUTE)
        gallery = self._scope["app"].state.settings.gallery
        observe_response(gallery, route, self._status, seconds)
        slug = self._scope["state"].get("problem")
        self._outer.observe(self._scope, route, self._status, seconds, slug)
        if slug is not None:
            count_rejection(slug)
        if self._outer.wants_spans:
            self._record_spans(Span(f"{self._scope['method']} {route}", start, end), list(spans), gallery)
        if logs.is_logging_requests():
            fields: dict[str, Any] = {
                "request_id": self._id.decode(),
                "method": self._scope["method"],
                "path": self._scope["path"],
                "status": self._status,
                "ms": round(seconds * 1000, 3),
            }
            if gallery != self._settings.gallery:
                fields["gallery"] = gallery
            if slug is not None:
                fields["problem"] = slug
            logs.log_request(fields)

    def _record_spans(self, request: Span, parts: list[Span], gallery: str) -> None:
        """Keep the trace of a request, and log it if it was slow: numbers and names of routes alone."""
        known: dict[str, str | int] = {
            "http.request.method": self._scope["method"],
            "http.route": request.name.partition(" ")[2],
            "http.response.status_code": self._status,
            "limen.request_id": self._id.decode(),
            "limen.gallery": gallery,
            **self._scope["state"].get("asked", {}),
        }
        problem = self._scope["state"].get("problem")
        if problem is not None:
            known["limen.problem"] = problem
        if self._outer.tracer is not None:
            self._outer.tracer.keep(request, parts, self._headers, known, self._status >= 500)
        slow, seconds = self._settings.slow_query, request.end - request.start
        if slow is not None and seconds >= slow:
            spent: dict[str, float] = {}
            for part in parts:
                spent[part.name] = spent.get(part.name, 0.0) + part.end - part.start
            fields: dict[str, Any] = {name.rpartition(".")[2]: value for name, value in known.items()}
            times = {name: round(1000 * value, 3) for name, value in spent.items()}
            fields |= {"ms": round(1000 * seconds, 3), "parts_ms": times, "body_bytes": self.received}
            logs.LOGGER.warning("slow query", extra={"fields": fields})
