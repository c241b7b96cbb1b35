"""What is alike in answering a search and a match, once the request is read."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from fastapi import Response

from index.search import rescoring_timer
from service.http.resolve_queries import ResolvedQueries
from service.telemetry import prometheus
from service.telemetry.drift import DriftMonitor

T = TypeVar("T")


def answer(
    resolve: Callable[[], ResolvedQueries],
    find: Callable[[ResolvedQueries], T],
    write: Callable[[T, float], Response],
    drift: DriftMonitor,
    start: float,
    parsed: float,
) -> Response:
    """The whole answer, written where it is computed: a large one would hold up the event loop.

    Args:
        resolve: makes the queries' unit rows.
        find: what they find.
        write: the response with it, given the milliseconds since ``start``.
        drift: is told of queries that are no items.
        start: when the request began, in seconds of ``perf_counter``.
        parsed: when it had been read.
    """
    rescoring_timer.take()
    queries = resolve()
    found = find(queries)
    searched = perf_counter()
    if queries.excluded is None:
        drift.note(queries.vectors)
    response = write(found, round((searched - start) * 1000, 3))
    prometheus.observe_stages(
        parse=parsed - start,
        search=searched - parsed,
        rescore=rescoring_timer.take(),
        serialize=perf_counter() - searched,
    )
    return response
