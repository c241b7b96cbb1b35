"""Return the memory of large request bodies to the operating system."""

from __future__ import annotations

import asyncio
import ctypes

LARGE = 1 << 20
_KEPT = 16 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_ARENAS = 2
_LIBC = ctypes.CDLL(None)
# glibc has both functions; other C libraries are left alone
_TRIM = getattr(_LIBC, "malloc_trim", None)


def configure_malloc() -> None:
    """Map blocks of a MiB and more one by one, so that freeing them returns their memory.

    Otherwise glibc raises this limit to the largest block it has seen, and keeps smaller blocks. Setting it
    also stops glibc from raising the trim threshold (128 KiB that may lie free at the end of the heap): a
    search whose arrays happen to lie there would return and fetch its pages each time (0.1 ms). Threads share
    few arenas, each of which reserves 64 MiB of addresses, so that a process whose address space is limited
    has it for its requests.
    """
    if _TRIM is not None:
        _LIBC.mallopt(_MMAP_THRESHOLD, LARGE)
        _LIBC.mallopt(_TRIM_THRESHOLD, _KEPT)
        _LIBC.mallopt(_ARENA_MAX, _ARENAS)


async def trim_heap() -> None:
    """Return free heap memory; in a thread, since it may take milliseconds."""
    if _TRIM is not None:
        await asyncio.to_thread(_TRIM, 0)
