"""How long re-scoring took within the searches of the present thread, for whoever watches."""

from __future__ import annotations

from threading import local


class _Seconds(local):
    rescoring = 0.0


_spent = _Seconds()


def add(seconds: float) -> None:
    """Count time spent on re-scoring."""
    _spent.rescoring += seconds


def take() -> float:
    """Seconds of re-scoring since this was last asked in this thread."""
    seconds, _spent.rescoring = _spent.rescoring, 0.0
    return seconds
