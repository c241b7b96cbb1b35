"""Compiled loops on all cores: they release the interpreter's lock, so plain threads are enough.

Plain threads rather than numba's own pool, which does not allow two callers at a time; a service
that recomputes a report while another is under way would be ended by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 64  # rows below which a second thread costs more than it saves


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_shares(n: int, threads: int | None = None) -> list[NDArray[np.int64]]:
    """Disjoint row numbers that together are 0..n-1, one array per thread.

    Rows are dealt in turn: in a triangle the first rows are longer than the last.
    """
    parts = (cores() if threads is None else threads) if n > SMALL else 1
    return [np.arange(first, n, parts) for first in range(parts)]


def in_threads(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of one function called with each tuple of arguments, in order, side by side."""
    if len(calls) == 1:
        return [function(*calls[0])]
    futures = [_pool().submit(function, *arguments) for arguments in calls]
    return [future.result() for future in futures]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="evaluation")
