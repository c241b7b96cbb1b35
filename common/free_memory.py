"""Memory that was freed, returned to the operating system."""

from __future__ import annotations

import ctypes

# glibc has it; other C libraries are left alone
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_free_memory() -> None:
    """Return what the heap and Arrow's pool keep for later: reading a table leaves several times its size."""
    from pyarrow import default_memory_pool

    default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)
