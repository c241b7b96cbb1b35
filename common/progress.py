"""Progress of a long step, reported to whatever track is passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")
Say = Callable[[str], None]
"""Called with a sentence for the person at the keyboard."""


class Track(Protocol):
    """Wraps an iterable and reports its progress under a short name."""

    def __call__(self, steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]: ...


def silent(steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
    """A no-op track."""
    return steps


def silent_say(sentence: str) -> None:
    """A no-op say."""
