"""The gate before the app: searches and matches that must be refused for load never become a call of it.

As a call a refusal takes half as long as a small search, so that under overload refusals alone would fill the
event loop.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from time import monotonic

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE
from service.errors.problems import ServiceProblem, write_problem
from service.http.middleware import LOAD_CHECKED_PATHS, NO_STORE, SECURITY_HEADERS, VALID_ID
from service.telemetry import logs
from service.telemetry.prometheus import count_rejection

LOG_SECONDS = 1.0
_PATHS = frozenset(path.encode() for path in LOAD_CHECKED_PATHS)
_HEADERS = b"".join(name + b": " + value + b"\r\n" for name, value in (*SECURITY_HEADERS, NO_STORE))


class LoadGate:
    """Refuses by the limits on load, with the answer that the app would give.

    Args:
        check: raises the problem ``overloaded`` for a request that would wait too long.
        observe: called with the problem's status and slug for each request that is refused.
    """

    def __init__(self, check: Callable[[], None], observe: Callable[[int, str], None]) -> None:
        self._check, self._observe = check, observe
        self._refused, self._logged_at = 0, 0.0

    def refuse(self, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """The answer to a request that is refused; None for one that is admitted, or of another path."""
        path = url.partition(b"?")[0]
        if path not in _PATHS:
            return None
        try:
            self._check()
        except ServiceProblem as problem:
            self._record(problem)
            return _write_answer(problem, path, headers)
        return None

    def _record(self, problem: ServiceProblem) -> None:
        """Count a refusal; the log has one line a second for all of them."""
        self._observe(problem.kind.status, problem.kind.slug)
        count_rejection(problem.kind.slug)
        self._refused += 1
        now = monotonic()
        if now - self._logged_at >= LOG_SECONDS and logs.is_logging_requests():
            logs.log_refusals(
                {"status": problem.kind.status, "problem": problem.kind.slug, "requests": self._refused}
            )
            self._refused, self._logged_at = 0, now


def _write_answer(problem: ServiceProblem, path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    request_id = given if VALID_ID.fullmatch(given) else secrets.token_hex(8).encode()
    body = write_problem(problem.kind, problem.detail, path.decode(), request_id.decode())
    of_problem = "".join(f"{name.lower()}: {value}\r\n" for name, value in problem.headers.items())
    head = (
        f"HTTP/1.1 {problem.kind.status} {problem.kind.title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n{of_problem}x-request-id: "
    )
    return head.encode() + request_id + b"\r\n" + _HEADERS + b"\r\n" + body
