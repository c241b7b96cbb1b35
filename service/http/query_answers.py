"""Answers of search, match and verify: computed in a thread, timed by stage, decisions counted and signed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter, time
from typing import Any, Literal, TypeVar

from fastapi import Response

from api_schemas.operating_point import OperatingPoint
from common.time_budget import check_time
from decision.decider import MatchDecision, VerifyDecision
from index.search.rescoring import take_seconds_spent
from service.auth.decision_tokens import SignedDecision
from service.errors.problems import LIMIT_EXCEEDED, ServiceProblem
from service.http.bodies import JSON, write_json
from service.http.query_requests import O, QueryRequest
from service.http.resolve_references import ResolvedQueries
from service.models.loaded_model import LoadedModel
from service.settings import ServiceSettings
from service.state import ServiceState
from service.telemetry import prometheus

T = TypeVar("T")
# similarity, score, and texts and metadata as a few numbers
VALUES_OF_HIT = 8


async def answer_queries(
    state: ServiceState,
    request: QueryRequest[O],
    search: Callable[[ResolvedQueries], T],
    write: Callable[[T, float], Response],
    light: bool,
) -> Response:
    """The response to a search or match, from references to bytes.

    Args:
        request: the parsed request.
        search: the results of the resolved queries.
        write: the response with these results, given the milliseconds since the request began. A large one
            is written in the compute thread, where it does not hold up the event loop.
        light: whether the search is plain; if its queries are also few, it is computed on the event loop.
    """

    def work() -> Response:
        take_seconds_spent()
        queries = request.resolve()
        results = search(queries)
        searched = perf_counter()
        response = write(results, round((searched - request.started) * 1000, 3))
        prometheus.observe_stages(
            parse=request.parsed - request.started,
            search=searched - request.parsed,
            rescore=take_seconds_spent(),
            serialize=perf_counter() - searched,
        )
        return response

    return await state.compute.run(work, light=light and request.is_light)


def write_results(
    results: Iterable[dict[str, Any]], model: LoadedModel, took_ms: float, settings: ServiceSettings
) -> Response:
    """The JSON response with one result per query or pair.

    Results are written one after the other, so that no more of them are in memory than the answer may have
    bytes; raises the problem ``limit-exceeded`` beyond.
    """
    parts: list[bytes] = []
    size = 0
    for result in results:
        check_time()
        part = write_json(result)
        size += len(part) + 1
        if size > settings.max_answer_bytes:
            raise ServiceProblem(
                LIMIT_EXCEEDED,
                f"The answer has over {settings.max_answer_bytes} bytes (LIMEN_MAX_ANSWER_BYTES): send fewer "
                "queries, a smaller k, or leave metadata and vectors out with include.",
            )
        parts.append(part)
    head = write_json({"model_hash": model.model_hash, "took_ms": took_ms})
    return Response(b'{"results":[' + b",".join(parts) + b"]," + head[1:], media_type=JSON)


def check_answer(count: int, k: int, width: int, model: LoadedModel, settings: ServiceSettings) -> None:
    """Raises the problem ``limit-exceeded`` for a search whose answer could be too large.

    Args:
        count: of queries.
        k: hits of each.
        width: numbers of a hit's vector; 0 where it is left out.
    """
    values = count * min(k, model.gallery.n_items) * (VALUES_OF_HIT + width)
    if values > settings.max_answer_values:
        raise ServiceProblem(
            LIMIT_EXCEEDED,
            f"The answer could have {values} values, at most {settings.max_answer_values} are allowed "
            "(LIMEN_MAX_ANSWER_VALUES): send fewer queries, a smaller k, or leave the vectors out.",
        )


def write_decision(
    decision: MatchDecision | VerifyDecision,
    *,
    endpoint: Literal["match", "verify"],
    state: ServiceState,
    model: LoadedModel,
    point: OperatingPoint,
    a: str | None,
    b: str | None,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """A decision between the items ``a`` and ``b`` as a result with a signed id; counted in the metrics.

    ``fingerprint`` is that of a query which is no item, by which a correction knows it again.
    """
    prometheus.count_decision(state.settings.gallery, point.name, decision.decision)
    token = state.signer.sign(
        SignedDecision(
            endpoint=endpoint,
            at=time(),
            model_hash=model.model_hash,
            operating_point=decision.operating_point,
            decision=decision.decision,
            score=decision.score,
            a=a,
            b=b,
            fingerprint=fingerprint,
        )
    )
    written = decision._asdict() | {"decision_id": token}
    if isinstance(decision, MatchDecision):
        written["candidates"] = [candidate._asdict() for candidate in decision.candidates]
        why = written.pop("explanation")
        if why is not None:
            written["explanation"] = why._asdict() | {"parts": [part._asdict() for part in why.parts]}
        if decision.reason is None:
            del written["reason"]
    return written
