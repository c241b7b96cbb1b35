"""Progress of what a service does before it is ready, as log lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import Any, TypeVar

from service.telemetry.logs import LOGGER

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def log_progress(steps: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """The steps; every five seconds a line tells how many are done, of how many, and the time left."""
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    started = spoken = monotonic()
    for done, step in enumerate(steps):
        now = monotonic()
        if now - spoken >= SECONDS_BETWEEN_LINES:
            spoken = now
            fields: dict[str, Any] = {"step": name, "done": done, "total": total}
            if total and done:
                fields["seconds_left"] = round((total - done) * (now - started) / done)
            LOGGER.info("loading", extra={"fields": fields})
        yield step
