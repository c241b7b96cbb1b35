"""The service from Python, synchronous and asynchronous, with the names of the API.

client = Client("http://127.0.0.1:8000")
client.match(vectors).results[0].decision

Rows of numbers travel as raw float32; 429 and 503 are tried again after what the service asks for.

Errors:
    ServiceError     the service answered with a problem; ``.problem`` is the document
    httpx.HTTPError  there was no answer
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from copy import copy
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from api_schemas.base import Schema
from api_schemas.errors import LimenError
from api_schemas.http import (
    Info,
    MatchResponse,
    OperatingPointList,
    OperatingPointSummary,
    Ready,
    SearchResponse,
    VerifyResponse,
)
from api_schemas.http_admin import ActivateModelResponse, ActivatePointResponse, History, Job, ModelList
from api_schemas.http_items import (
    DeleteResponse,
    FeedbackResponse,
    Item,
    ItemPage,
    UpsertResponse,
)
from api_schemas.operating_point import OperatingPoint
from api_schemas.problem import Problem
from api_schemas.report import Report
from limen.found import Found, read_found

__all__ = ["AsyncClient", "Client", "Found", "ServiceError"]

T = TypeVar("T")
Queries = ArrayLike | Sequence[dict[str, Any]]
LONGEST_PAUSE = 30.0


class ServiceError(LimenError):
    """The service answered with a problem; ``problem.type`` is what to branch on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class _Call(Generic[T]):
    """One request, and what its answer is read as."""

    def __init__(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        json: object = None,
        rows: NDArray[np.float32] | None = None,
        params: dict[str, Any] | None = None,
        accept: str = "application/json",
    ) -> None:
        self.method, self.path, self.answer = method, path, answer
        self.params = {name: value for name, value in (params or {}).items() if value is not None}
        self.headers = {"Accept": accept}
        self.content: bytes | None = None
        if rows is not None:
            self.headers["Content-Type"] = "application/octet-stream"
            self.content = rows.tobytes()
        elif json is not None:
            self.headers["Content-Type"] = "application/json"
            self.content = orjson.dumps(json, option=orjson.OPT_SERIALIZE_NUMPY)

    def as_bytes(self) -> _Call[bytes]:
        """The same request, answered in binary."""
        call: _Call[Any] = copy(self)
        call.answer, call.headers = bytes, self.headers | {"Accept": "application/octet-stream"}
        return call

    def read(self, response: httpx.Response) -> T:
        if response.is_error:
            raise ServiceError(_problem(response))
        if self.answer is bytes:
            return response.content  # type: ignore[return-value]
        if issubclass(self.answer, Schema):
            return self.answer.model_validate_json(response.content)
        return TypeAdapter(self.answer).validate_json(response.content)


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        # something between us and the service answered
        return Problem(
            type="about:blank",
            title=response.reason_phrase or "error",
            status=response.status_code,
            detail=f"{response.url} answered {response.status_code} and no problem document.",
            instance=response.url.path,
            request_id=response.headers.get("x-request-id", "-"),
        )


def _pause(response: httpx.Response | None, attempt: int) -> float:
    asked = response.headers.get("retry-after", "") if response is not None else ""
    return min(float(asked) if asked.isdigit() else 0.1 * 2**attempt, LONGEST_PAUSE)


def _again(response: httpx.Response) -> bool:
    return response.status_code in {429, 503}


def _asked(path: str, answer: type[T], queries: Queries, **options: Any) -> _Call[T]:
    """Arrays go as raw rows with the options in the query string, references as JSON."""
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(queries, np.ndarray) and _are_references(queries):
        return _Call("POST", path, answer, json={"queries": list(queries), **given})  # type: ignore[arg-type]
    rows = np.ascontiguousarray(np.atleast_2d(np.asarray(queries, dtype="<f4")))
    if "filter" in given:
        given["filter"] = orjson.dumps(given["filter"]).decode()
    if "include" in given:
        given["include"] = ",".join(given["include"])
    return _Call("POST", path, answer, rows=rows, params=given)


def _are_references(queries: Queries) -> bool:
    return isinstance(queries, Sequence) and all(isinstance(one, dict) for one in queries)


def _search(
    queries: Queries,
    k: int,
    filter: dict[str, Any] | None,  # noqa: A002 - the name of the API
    exact: bool,
    min_score: float | None,
    rank_by: str,
    include: Sequence[str],
) -> _Call[SearchResponse]:
    return _asked(
        "/v1/search",
        SearchResponse,
        queries,
        k=k,
        filter=filter,
        exact=exact,
        min_score=min_score,
        rank_by=rank_by,
        include=list(include),
    )


def _embeddings(inputs: Sequence[Any]) -> _Call[bytes]:
    return _Call(
        "POST", "/v1/embeddings", bytes, json={"input": list(inputs)}, accept="application/octet-stream"
    )


def _verify(pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> _Call[VerifyResponse]:
    return _Call("POST", "/v1/verify", VerifyResponse, json={"pairs": [{"a": a, "b": b} for a, b in pairs]})


def _upsert(items: Sequence[dict[str, Any]], model_hash: str | None) -> _Call[UpsertResponse]:
    return _Call("PUT", "/v1/items", UpsertResponse, json={"items": list(items), "model_hash": model_hash})


def _delete(item_id: str, rebuild: bool) -> _Call[DeleteResponse]:
    params = {"rebuild": True} if rebuild else None
    return _Call("DELETE", f"/v1/items/{quote(item_id)}", DeleteResponse, params=params)


def _delete_items(
    ids: Sequence[str] | None, condition: dict[str, Any] | None, rebuild: bool
) -> _Call[DeleteResponse]:
    given: dict[str, Any] = {"filter": condition} if ids is None else {"ids": list(ids)}
    return _Call("POST", "/v1/items/delete", DeleteResponse, json={**given, "rebuild": rebuild})


def _activate(version: str, allow_missing: bool) -> _Call[ActivateModelResponse]:
    path = f"/v1/models/{quote(version)}/activate"
    return _Call("POST", path, ActivateModelResponse, json={"allow_missing": allow_missing})


def _feedback(
    same: bool, decision_id: str | None, a: dict[str, Any] | None, b: dict[str, Any] | None
) -> _Call[FeedbackResponse]:
    about = {"decision_id": decision_id} if decision_id is not None else {"a": a, "b": b}
    return _Call("POST", "/v1/feedback", FeedbackResponse, json={**about, "same": same})


def _rows(content: bytes, n: int) -> NDArray[np.float32]:
    return np.frombuffer(content, dtype="<f4").reshape(n, -1).astype(np.float32)


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


class Client:
    """A connection to one service; use it as a context manager or `close` it.

    Args:
        address: of the service.
        key: sent as a bearer token.
        timeout: seconds for one attempt.
        retries: further attempts after 429, 503 or a refused connection.
        transport: what carries requests; for tests.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(
            base_url=address, headers=_headers(key), timeout=timeout, transport=transport
        )
        self._retries = retries

    def ready(self) -> Ready:
        """``GET /readyz``."""
        return self._do(_Call("GET", "/readyz", Ready))

    def info(self) -> Info:
        """``GET /v1/info``."""
        return self._do(_Call("GET", "/v1/info", Info))

    def operating_points(self) -> OperatingPointList:
        """``GET /v1/operating-points``."""
        return self._do(_Call("GET", "/v1/operating-points", OperatingPointList))

    def consistency(self, source: Literal["holdout", "gallery", "feedback"] = "holdout") -> Report:
        """``GET /v1/reports/consistency``."""
        return self._do(_Call("GET", "/v1/reports/consistency", Report, params={"source": source}))

    def embeddings(self, inputs: Sequence[Any]) -> NDArray[np.float32]:
        """``POST /v1/embeddings``: float32 [n, d] unit rows."""
        return _rows(self._do(_embeddings(inputs)), len(inputs))

    def search(
        self,
        queries: Queries,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        exact: bool = False,
        min_score: float | None = None,
        rank_by: Literal["similarity", "score"] = "similarity",
        include: Sequence[Literal["metadata", "vector"]] = ("metadata",),
    ) -> SearchResponse:
        """``POST /v1/search`` for rows [n, d] or references such as ``{"id": "7"}``."""
        return self._do(_search(queries, k, filter, exact, min_score, rank_by, include))

    def search_arrays(
        self,
        queries: Queries,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        exact: bool = False,
        min_score: float | None = None,
        rank_by: Literal["similarity", "score"] = "similarity",
    ) -> Found:
        """``POST /v1/search`` with a binary answer: the quickest way to many hits, without metadata."""
        call = _search(queries, k, filter, exact, min_score, rank_by, ()).as_bytes()
        return read_found(self._do(call))

    def match(
        self,
        queries: Queries,
        k: int = 100,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        aggregate: Literal["nearest", "mean_of_class"] = "nearest",
    ) -> MatchResponse:
        """``POST /v1/match`` for rows [n, d] or references."""
        call = _asked("/v1/match", MatchResponse, queries, k=k, filter=filter, aggregate=aggregate)
        return self._do(call)

    def verify(self, pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> VerifyResponse:
        """``POST /v1/verify`` for pairs of references."""
        return self._do(_verify(pairs))

    def upsert(self, items: Sequence[dict[str, Any]], model_hash: str | None = None) -> UpsertResponse:
        """``PUT /v1/items``: each item has id, label, vector or input, and metadata."""
        return self._do(_upsert(items, model_hash))

    def item(self, item_id: str) -> Item:
        """``GET /v1/items/{id}``."""
        return self._do(_Call("GET", f"/v1/items/{quote(item_id)}", Item))

    def items(self, cursor: str | None = None, limit: int = 100) -> ItemPage:
        """``GET /v1/items``: one page; go on with its ``next_cursor``."""
        return self._do(_Call("GET", "/v1/items", ItemPage, params={"cursor": cursor, "limit": limit}))

    def delete(self, item_id: str, *, rebuild: bool = False) -> DeleteResponse:
        """``DELETE /v1/items/{id}``; with ``rebuild`` a job makes the index's files forget too."""
        return self._do(_delete(item_id, rebuild))

    def delete_items(
        self,
        *,
        ids: Sequence[str] | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002
        rebuild: bool = False,
    ) -> DeleteResponse:
        """``POST /v1/items/delete``: by ids or by filter."""
        return self._do(_delete_items(ids, filter, rebuild))

    def feedback(
        self,
        *,
        same: bool,
        decision_id: str | None = None,
        a: dict[str, Any] | None = None,
        b: dict[str, Any] | None = None,
    ) -> FeedbackResponse:
        """``POST /v1/feedback``: the truth about a decision or a pair."""
        return self._do(_feedback(same, decision_id, a, b))

    def models(self) -> ModelList:
        """``GET /v1/models``."""
        return self._do(_Call("GET", "/v1/models", ModelList))

    def load_model(self, version: str) -> Job:
        """``POST /v1/models``: loads a bundle behind; `wait` for the job."""
        return self._do(_Call("POST", "/v1/models", Job, json={"version": version}))

    def activate_model(self, version: str, allow_missing: bool = False) -> ActivateModelResponse:
        """``POST /v1/models/{version}/activate``."""
        return self._do(_activate(version, allow_missing))

    def add_operating_point(self, point: OperatingPoint) -> OperatingPointSummary:
        """``POST /v1/operating-points``."""
        content = point.model_dump(mode="json")
        return self._do(_Call("POST", "/v1/operating-points", OperatingPointSummary, json=content))

    def activate_operating_point(self, point_id: str) -> ActivatePointResponse:
        """``POST /v1/operating-points/{id}/activate``."""
        path = f"/v1/operating-points/{quote(point_id)}/activate"
        return self._do(_Call("POST", path, ActivatePointResponse))

    def compute_report(self, source: Literal["gallery", "feedback"] = "gallery") -> Job:
        """``POST /v1/reports/consistency``: a job; `wait` for it and read `consistency`."""
        return self._do(_Call("POST", "/v1/reports/consistency", Job, params={"source": source}))

    def history(self) -> History:
        """``GET /v1/reports/consistency/history``."""
        return self._do(_Call("GET", "/v1/reports/consistency/history", History))

    def job(self, job_id: str) -> Job:
        """``GET /v1/jobs/{id}``."""
        return self._do(_Call("GET", f"/v1/jobs/{quote(job_id)}", Job))

    def wait(self, job: Job, every: float = 0.1) -> Job:
        """The job once it is done or has failed."""
        while job.status in {"waiting", "running"}:
            time.sleep(every)
            job = self.job(job.id)
        return job

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: _Call[T]) -> T:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            response = None
            try:
                response = self._http.request(
                    call.method, call.path, params=call.params, content=call.content, headers=call.headers
                )
            except httpx.ConnectError:
                if last:
                    raise
            if response is not None and (last or not _again(response)):
                return call.read(response)
            time.sleep(_pause(response, attempt))
        raise AssertionError("unreachable")


class AsyncClient:
    """`Client` for asyncio; the same arguments and methods."""

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=address, headers=_headers(key), timeout=timeout, transport=transport
        )
        self._retries = retries

    async def ready(self) -> Ready:
        """``GET /readyz``."""
        return await self._do(_Call("GET", "/readyz", Ready))

    async def info(self) -> Info:
        """``GET /v1/info``."""
        return await self._do(_Call("GET", "/v1/info", Info))

    async def operating_points(self) -> OperatingPointList:
        """``GET /v1/operating-points``."""
        return await self._do(_Call("GET", "/v1/operating-points", OperatingPointList))

    async def consistency(self, source: Literal["holdout", "gallery", "feedback"] = "holdout") -> Report:
        """``GET /v1/reports/consistency``."""
        return await self._do(_Call("GET", "/v1/reports/consistency", Report, params={"source": source}))

    async def embeddings(self, inputs: Sequence[Any]) -> NDArray[np.float32]:
        """``POST /v1/embeddings``: float32 [n, d] unit rows."""
        return _rows(await self._do(_embeddings(inputs)), len(inputs))

    async def search(
        self,
        queries: Queries,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        exact: bool = False,
        min_score: float | None = None,
        rank_by: Literal["similarity", "score"] = "similarity",
        include: Sequence[Literal["metadata", "vector"]] = ("metadata",),
    ) -> SearchResponse:
        """``POST /v1/search`` for rows [n, d] or references such as ``{"id": "7"}``."""
        return await self._do(_search(queries, k, filter, exact, min_score, rank_by, include))

    async def search_arrays(
        self,
        queries: Queries,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        exact: bool = False,
        min_score: float | None = None,
        rank_by: Literal["similarity", "score"] = "similarity",
    ) -> Found:
        """``POST /v1/search`` with a binary answer: the quickest way to many hits, without metadata."""
        call = _search(queries, k, filter, exact, min_score, rank_by, ()).as_bytes()
        return read_found(await self._do(call))

    async def match(
        self,
        queries: Queries,
        k: int = 100,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        aggregate: Literal["nearest", "mean_of_class"] = "nearest",
    ) -> MatchResponse:
        """``POST /v1/match`` for rows [n, d] or references."""
        call = _asked("/v1/match", MatchResponse, queries, k=k, filter=filter, aggregate=aggregate)
        return await self._do(call)

    async def verify(self, pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> VerifyResponse:
        """``POST /v1/verify`` for pairs of references."""
        return await self._do(_verify(pairs))

    async def upsert(self, items: Sequence[dict[str, Any]], model_hash: str | None = None) -> UpsertResponse:
        """``PUT /v1/items``: each item has id, label, vector or input, and metadata."""
        return await self._do(_upsert(items, model_hash))

    async def item(self, item_id: str) -> Item:
        """``GET /v1/items/{id}``."""
        return await self._do(_Call("GET", f"/v1/items/{quote(item_id)}", Item))

    async def items(self, cursor: str | None = None, limit: int = 100) -> ItemPage:
        """``GET /v1/items``: one page; go on with its ``next_cursor``."""
        return await self._do(_Call("GET", "/v1/items", ItemPage, params={"cursor": cursor, "limit": limit}))

    async def delete(self, item_id: str, *, rebuild: bool = False) -> DeleteResponse:
        """``DELETE /v1/items/{id}``; with ``rebuild`` a job makes the index's files forget too."""
        return await self._do(_delete(item_id, rebuild))

    async def delete_items(
        self,
        *,
        ids: Sequence[str] | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002
        rebuild: bool = False,
    ) -> DeleteResponse:
        """``POST /v1/items/delete``: by ids or by filter."""
        return await self._do(_delete_items(ids, filter, rebuild))

    async def feedback(
        self,
        *,
        same: bool,
        decision_id: str | None = None,
        a: dict[str, Any] | None = None,
        b: dict[str, Any] | None = None,
    ) -> FeedbackResponse:
        """``POST /v1/feedback``: the truth about a decision or a pair."""
        return await self._do(_feedback(same, decision_id, a, b))

    async def models(self) -> ModelList:
        """``GET /v1/models``."""
        return await self._do(_Call("GET", "/v1/models", ModelList))

    async def load_model(self, version: str) -> Job:
        """``POST /v1/models``: loads a bundle behind; `wait` for the job."""
        return await self._do(_Call("POST", "/v1/models", Job, json={"version": version}))

    async def activate_model(self, version: str, allow_missing: bool = False) -> ActivateModelResponse:
        """``POST /v1/models/{version}/activate``."""
        return await self._do(_activate(version, allow_missing))

    async def add_operating_point(self, point: OperatingPoint) -> OperatingPointSummary:
        """``POST /v1/operating-points``."""
        content = point.model_dump(mode="json")
        return await self._do(_Call("POST", "/v1/operating-points", OperatingPointSummary, json=content))

    async def activate_operating_point(self, point_id: str) -> ActivatePointResponse:
        """``POST /v1/operating-points/{id}/activate``."""
        path = f"/v1/operating-points/{quote(point_id)}/activate"
        return await self._do(_Call("POST", path, ActivatePointResponse))

    async def compute_report(self, source: Literal["gallery", "feedback"] = "gallery") -> Job:
        """``POST /v1/reports/consistency``: a job; `wait` for it and read `consistency`."""
        return await self._do(_Call("POST", "/v1/reports/consistency", Job, params={"source": source}))

    async def history(self) -> History:
        """``GET /v1/reports/consistency/history``."""
        return await self._do(_Call("GET", "/v1/reports/consistency/history", History))

    async def job(self, job_id: str) -> Job:
        """``GET /v1/jobs/{id}``."""
        return await self._do(_Call("GET", f"/v1/jobs/{quote(job_id)}", Job))

    async def wait(self, job: Job, every: float = 0.1) -> Job:
        """The job once it is done or has failed."""
        while job.status in {"waiting", "running"}:
            await asyncio.sleep(every)
            job = await self.job(job.id)
        return job

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, call: _Call[T]) -> T:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            response = None
            try:
                response = await self._http.request(
                    call.method, call.path, params=call.params, content=call.content, headers=call.headers
                )
            except httpx.ConnectError:
                if last:
                    raise
            if response is not None and (last or not _again(response)):
                return call.read(response)
            await asyncio.sleep(_pause(response, attempt))
        raise AssertionError("unreachable")
