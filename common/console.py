"""Progress on stderr: a bar on a terminal, a plain line every ten seconds anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def say(sentence: str) -> None:
    """One line for the person at the keyboard, on stderr so that stdout stays data."""
    from tqdm import tqdm

    tqdm.write(sentence, file=sys.stderr)


def track(steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
    """Wrap an iterable so that its rate and remaining time are shown while it runs."""
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    if sys.stderr.isatty():
        from tqdm import tqdm

        return tqdm(steps, desc=name, total=total, leave=False, dynamic_ncols=True)
    return _Lines(steps, name, total)


class _Lines(Generic[T]):
    """Progress as plain lines; takes a note as tqdm's bars do."""

    def __init__(self, steps: Iterable[T], name: str, total: int | None) -> None:
        self.steps, self.name, self.total, self.note = steps, name, total, ""

    def set_postfix_str(self, note: str, refresh: bool = True) -> None:
        """Add a note to the lines that follow."""
        self.note = f", {note}"

    def __iter__(self) -> Iterator[T]:
        started = spoken = time.monotonic()
        for done, step in enumerate(self.steps):
            now = time.monotonic()
            if now - spoken >= SECONDS_BETWEEN_LINES:
                spoken = now
                rate = done / (now - started)
                of = f" of {self.total}" if self.total else ""
                left = f", {(self.total - done) / rate:.0f} s left" if self.total and rate else ""
                speed = f"{rate:.1f}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s each"
                say(f"{self.name}: {done}{of}, {speed}{left}{self.note}")
            yield step
