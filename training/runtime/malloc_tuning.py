"""Tune malloc so that steps reuse freed memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_LARGEST = 2**31 - 1
_DEFAULTS = {_TRIM_THRESHOLD: 128 << 10, _MMAP_MAX: 65_536}
_LIBC = ctypes.CDLL(None)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Allocate large blocks on the heap, and return its end to the operating system only when this is left.

    Otherwise glibc maps every tensor above 32 MiB again and unmaps it when it is freed: the system clears all
    its pages in each step, up to half of the time on a CPU. A no-op with other C libraries.
    """
    if not hasattr(_LIBC, "malloc_trim"):  # the C library of GNU/Linux alone has both
        yield
        return
    _LIBC.mallopt(_MMAP_MAX, 0)
    _LIBC.mallopt(_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            _LIBC.mallopt(option, value)
        _LIBC.malloc_trim(0)
