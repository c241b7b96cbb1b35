"""What a large body took is given back to the system, not kept for the next one."""

from __future__ import annotations

import asyncio
import ctypes

LARGE = 1 << 20
_KEPT = 16 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LIBC = ctypes.CDLL(None)
# the C library of GNU/Linux has both; others give memory back or not, as they please
_TRIM = getattr(_LIBC, "malloc_trim", None)


def configure_malloc() -> None:
    """Blocks of a MiB and more are mapped each by itself and unmapped when freed.

    Otherwise glibc raises the limit to the largest block it has seen, and keeps what is below it. A limit
    that is set stops it from raising the other one too, 128 KiB that may lie free at the end of the heap:
    a search whose arrays happen to lie there would return and fetch its pages each time (0.1 ms).
    """
    if _TRIM is not None:
        _LIBC.mallopt(_MMAP_THRESHOLD, LARGE)
        _LIBC.mallopt(_TRIM_THRESHOLD, _KEPT)


async def trim_heap() -> None:
    """Return what lies free in the heaps; beside the event loop, since it may take milliseconds."""
    if _TRIM is not None:
        await asyncio.to_thread(_TRIM, 0)
