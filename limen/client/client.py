"""Clients of the service, synchronous and asyncio, with the names of the API.

client = Client("http://127.0.0.1:8000")
client.match(vectors).results[0].decision

Rows of numbers travel as raw float32; 429 and 503 are tried again after what the service asks for.

Errors:
    ServiceError        the service answered with a problem; ``.problem`` is the document
    ServiceUnreachable  there was no answer; the sentence says what to do
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx
from pydantic import ValidationError

from api_schemas.http.admin import Job
from api_schemas.http.problem import Problem
from common.errors import LimenError
from limen.client import requests, unknown_requests
from limen.client.call import JSON, Call

P = ParamSpec("P")
T = TypeVar("T")
Connection = TypeVar("Connection", httpx.Client, httpx.AsyncClient)
Transport = TypeVar("Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)
MAX_PAUSE = 30.0
RETRIED = {429, 503}


class ServiceError(LimenError):
    """The service answered with a problem document; branch on ``problem.type``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class ServiceUnreachable(LimenError):
    """There was no answer. Whether a write was done is then unknown."""


class _Method(Generic[P, T]):
    """A method of both clients, made from the function that builds its request."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.do(self._build(*args, **kwargs))

        return update_wrapper(method, self._build)


class _Api(Generic[Connection, Transport]):
    """The base of both clients: the methods of the API (`limen.client.requests`), retries and errors."""

    ready = _Method(requests.ready)
    info = _Method(requests.info)
    search = _Method(requests.search)
    search_arrays = _Method(requests.search_arrays)
    match = _Method(requests.match)
    verify = _Method(requests.verify)
    embeddings = _Method(requests.embeddings)
    upsert = _Method(requests.upsert)
    item = _Method(requests.item)
    items = _Method(requests.items)
    classes = _Method(requests.classes)
    describe_class = _Method(requests.describe_class)
    thumbnail = _Method(requests.thumbnail)
    previews = _Method(requests.previews)
    delete = _Method(requests.delete)
    delete_items = _Method(requests.delete_items)
    feedback = _Method(requests.feedback)
    correct = _Method(unknown_requests.correct)
    judge = _Method(unknown_requests.judge)
    feedback_page = _Method(unknown_requests.feedback_page)
    delete_feedback = _Method(unknown_requests.delete_feedback)
    unknowns = _Method(unknown_requests.unknowns)
    unknown = _Method(unknown_requests.unknown)
    unknown_thumbnail = _Method(unknown_requests.unknown_thumbnail)
    search_unknowns = _Method(unknown_requests.search_unknowns)
    unknown_groups = _Method(unknown_requests.unknown_groups)
    group_unknowns = _Method(unknown_requests.group_unknowns)
    enroll_unknowns = _Method(unknown_requests.enroll_unknowns)
    arrange_unknowns = _Method(unknown_requests.arrange_unknowns)
    undo_unknowns = _Method(unknown_requests.undo_unknowns)
    delete_unknown = _Method(unknown_requests.delete_unknown)
    delete_unknowns = _Method(unknown_requests.delete_unknowns)
    review = _Method(unknown_requests.review)
    operating_points = _Method(requests.operating_points)
    tradeoff = _Method(requests.tradeoff)
    choose_threshold = _Method(requests.choose_threshold)
    add_operating_point = _Method(requests.add_operating_point)
    activate_operating_point = _Method(requests.activate_operating_point)
    galleries = _Method(requests.galleries)
    models = _Method(requests.models)
    compare_model = _Method(requests.compare_model)
    comparison = _Method(requests.comparison)
    load_model = _Method(requests.load_model)
    activate_model = _Method(requests.activate_model)
    consistency = _Method(requests.consistency)
    export_report = _Method(requests.export_report)
    compute_report = _Method(requests.compute_report)
    start_label_audit = _Method(requests.start_label_audit)
    label_audit = _Method(requests.label_audit)
    export_label_audit = _Method(requests.export_label_audit)
    history = _Method(requests.history)
    job = _Method(requests.job)
    monitoring = _Method(requests.monitoring)
    alerts = _Method(requests.alerts)
    acknowledge_alert = _Method(requests.acknowledge_alert)

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        transport: Transport | None = None,
    ) -> None:
        headers = {"Accept": JSON} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        self._http: Connection = self._open(
            base_url=address, headers=headers, timeout=timeout, transport=transport
        )
        self._retries = retries

    def _open(self, **options: Any) -> Connection:
        raise NotImplementedError

    def _build_request(self, call: Call[Any]) -> httpx.Request:
        return self._http.build_request(
            call.method, call.path, params=call.params, content=call.content, headers=call.headers
        )

    def _read(self, call: Call[T], response: httpx.Response, attempt: int) -> T | float:
        """The answer, or the seconds after which to try again."""
        if response.status_code in RETRIED and attempt < self._retries:
            retry_after = response.headers.get("retry-after", "")
            return min(float(retry_after), MAX_PAUSE) if retry_after.isdigit() else _compute_pause(attempt)
        if response.is_error:
            raise ServiceError(_read_problem(response))
        return call.read(response.content)

    def _handle(self, error: httpx.TransportError, attempt: int) -> float:
        """The seconds after which to try again; raises ServiceUnreachable where that is not possible."""
        # only a refused connection is certain to have done nothing
        if isinstance(error, httpx.ConnectError) and attempt < self._retries:
            return _compute_pause(attempt)
        address = str(self._http.base_url).rstrip("/")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise ServiceUnreachable(
                f"No service answers at {address}: start one with `limen serve BUNDLE`, or give the client "
                f"the address of a running one ({error})."
            ) from error
        if isinstance(error, httpx.TimeoutException):
            raise ServiceUnreachable(
                f"{address} did not answer in time: ask for less at once, or give the client more timeout."
            ) from error
        raise ServiceUnreachable(
            f"The connection to {address} broke before an answer came: see whether the service still runs, "
            f"then ask again ({error or type(error).__name__})."
        ) from error


class Client(_Api[httpx.Client, httpx.BaseTransport]):
    """A connection to one service; use it as a context manager, or `close` it.

    Args:
        address: of the service.
        key: sent as a bearer token.
        timeout: seconds for one attempt.
        retries: further attempts after 429, 503 or a refused connection.
        transport: carries the requests; for tests.
    """

    def _open(self, **options: Any) -> httpx.Client:
        return httpx.Client(**options)

    def do(self, call: Call[T]) -> T:
        """Send a request and read its answer."""
        for attempt in range(self._retries + 1):
            try:
                answer = self._read(call, self._http.send(self._build_request(call)), attempt)
            except httpx.TransportError as error:
                answer = self._handle(error, attempt)
            if not isinstance(answer, float):
                return answer
            time.sleep(answer)
        raise AssertionError("unreachable")

    def wait(self, job: Job, every: float = 0.1) -> Job:
        """Poll a job until it is done or has failed."""
        while job.status in {"waiting", "running"}:
            time.sleep(every)
            job = self.job(job.id)
        return job

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Api[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """`Client` for asyncio, with the same arguments and methods."""

    def _open(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(**options)

    async def do(self, call: Call[T]) -> T:
        """Send a request and read its answer."""
        for attempt in range(self._retries + 1):
            try:
                answer = self._read(call, await self._http.send(self._build_request(call)), attempt)
            except httpx.TransportError as error:
                answer = self._handle(error, attempt)
            if not isinstance(answer, float):
                return answer
            await asyncio.sleep(answer)
        raise AssertionError("unreachable")

    async def wait(self, job: Job, every: float = 0.1) -> Job:
        """Poll a job until it is done or has failed."""
        while job.status in {"waiting", "running"}:
            await asyncio.sleep(every)
            job = await self.job(job.id)
        return job

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _compute_pause(attempt: int) -> float:
    return min(0.1 * 2.0**attempt, MAX_PAUSE)


def _read_problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        # a proxy between client and service answered
        return Problem(
            type="about:blank",
            title=response.reason_phrase or "error",
            status=response.status_code,
            detail=f"{response.url} answered {response.status_code} without a problem document.",
            instance=response.url.path,
            request_id=response.headers.get("x-request-id", "-"),
        )
