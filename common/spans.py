"""Spans: named stretches of time of the request that is being answered, for traces and slow queries.

Unless somebody has set a list, nothing is recorded, and nothing but one look at a context variable is paid.
What a request starts as an asyncio task has its spans, too; a pool of threads must be given them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of time, in seconds of ``perf_counter``."""

    name: str
    start: float
    end: float


SPANS: ContextVar[list[Span] | None] = ContextVar("spans", default=None)
"""The spans of what is being done here, in the order in which they ended; None where nobody wants them."""


@contextmanager
def record_span(name: str) -> Iterator[None]:
    """Record how long the block takes, where spans are recorded."""
    spans = SPANS.get()
    if spans is None:
        yield
        return
    start = perf_counter()
    try:
        yield
    finally:
        spans.append(Span(name, start, perf_counter()))


def add_span(name: str, start: float) -> None:
    """Record a span that began at ``start`` and ends now: without the cost of a block, for hot paths."""
    spans = SPANS.get()
    if spans is not None:
        spans.append(Span(name, start, perf_counter()))
