"""Time spent on re-scoring by the searches of the present thread, for monitoring."""

from __future__ import annotations

from threading import local


class _Seconds(local):
    rescoring = 0.0


_spent = _Seconds()


def add(seconds: float) -> None:
    """Count seconds spent on re-scoring."""
    _spent.rescoring += seconds


def take() -> float:
    """Seconds of re-scoring since the last call in this thread."""
    seconds, _spent.rescoring = _spent.rescoring, 0.0
    return seconds
