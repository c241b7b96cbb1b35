"""Compiled loops and matrix products on all cores, in plain threads: both release the GIL.

Plain threads rather than numba's own pool, which does not allow two callers at a time; a service
that recomputes a report while another is under way would be ended by it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from common.array_types import Float32s, Int64s, UnitVectors

SMALL = 64  # rows below which a second thread costs more than it saves


def count_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_rows(n: int, threads: int | None = None) -> list[Int64s]:
    """Disjoint row numbers that together are 0..n-1, one array per thread.

    Rows are dealt in turn: in a triangle the first rows are longer than the last.
    """
    parts = (count_cores() if threads is None else threads) if n > SMALL else 1
    return [np.arange(first, n, parts) for first in range(parts)]


def run_in_threads(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of one function called with each tuple of arguments, in order, side by side."""
    if len(calls) == 1:
        return [function(*calls[0])]
    futures = [_get_pool().submit(function, *arguments) for arguments in calls]
    return [future.result() for future in futures]


def multiply_rows(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """``a @ b.T``, [m, n], each thread multiplying rows of its own; written to ``out`` if given.

    A library that spreads one product over threads of its own leaves them spinning for a while, and
    the loops that follow wait for the cores.
    """
    if len(a) <= SMALL:
        return np.matmul(a, b.T, out=out)
    product = np.empty((len(a), len(b)), dtype=a.dtype) if out is None else out
    edges = np.linspace(0, len(a), count_cores() + 1).astype(int)
    with _hold_blas_to_one_thread():
        run_in_threads(
            np.matmul, [(a[first:stop], b.T, product[first:stop]) for first, stop in pairwise(edges)]
        )
    return product


def compute_exact_similarities(a: UnitVectors, b: UnitVectors) -> Float32s:
    """float32 [m, n] similarities, computed in float64 and rounded: tie for tie those of decisions."""
    products = multiply_rows(a.astype(np.float64), b.astype(np.float64))
    similarities: Float32s = np.clip(products, -1.0, 1.0).astype(np.float32)
    return similarities


@contextmanager
def _hold_blas_to_one_thread() -> Iterator[None]:
    """The BLAS library divides no product among threads; the last caller to leave restores its setting."""
    global _callers, _limit
    with _lock:
        if _callers == 0:
            _limit = _get_blas_controller().limit(limits=1, user_api="blas")
        _callers += 1
    try:
        yield
    finally:
        with _lock:
            _callers -= 1
            if _callers == 0:
                _limit.restore_original_limits()


_lock = threading.Lock()
_callers = 0
_limit: Any = None


@cache
def _get_blas_controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _get_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=count_cores(), thread_name_prefix="evaluation")
