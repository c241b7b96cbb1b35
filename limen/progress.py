"""Progress for people: a bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def say(sentence: str) -> None:
    """One line for the person at the keyboard, on stderr so that stdout stays data."""
    tqdm.write(sentence, file=sys.stderr)


def track(steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
    """Wrap an iterable so that its rate and remaining time are shown while it runs."""
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    if sys.stderr.isatty():
        return tqdm(steps, desc=name, total=total, leave=False, dynamic_ncols=True)
    return _lines(steps, name, total)


def _lines(steps: Iterable[T], name: str, total: int | None) -> Iterator[T]:
    started = spoken = time.monotonic()
    for done, step in enumerate(steps):
        now = time.monotonic()
        if now - spoken >= SECONDS_BETWEEN_LINES:
            spoken = now
            rate = done / (now - started)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            say(f"{name}: {done}{f' of {total}' if total else ''}, {rate:.1f}/s{left}")
        yield step
