"""Decorators of the compiled kernels.

Compiled loops release the GIL, so that threads run side by side, each on outputs of its own. What is compiled
is kept in the cache folder, where it outlives an upgrade, and where there is room beside an installation that
cannot be written to; where nothing can be kept, every process compiles for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from common.cache_folder import find_cache_folder

F = TypeVar("F", bound=Callable[..., Any])
_CONFIG: Any = numba.config  # its variables have no types


def kernel(**options: Any) -> Callable[[F], F]:
    """The decorator of a compiled loop with these options of ``numba.njit``."""
    return partial(_keep, partial(numba.njit, nogil=True, **options))


def _keep(decorator: Callable[..., Any], function: F) -> F:
    """The decorated function, its code kept in the folder that NUMBA_CACHE_DIR names, else in ours."""
    given = _CONFIG.CACHE_DIR  # read when a function is decorated
    try:
        _CONFIG.CACHE_DIR = given or str(_find_kernel_folder())
        return cast("F", decorator(cache=True)(function))
    except RuntimeError:  # neither there nor beside the source file is room
        return cast("F", decorator()(function))
    finally:
        _CONFIG.CACHE_DIR = given


@cache
def _find_kernel_folder() -> Path:
    """Another one for every change of a kernel, which may be compiled into others."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    content = b"".join(source.read_bytes() for source in sources)
    return find_cache_folder("kernels") / hashlib.sha256(content).hexdigest()[:16]


compiled: Callable[[F], F] = kernel(error_model="numpy")
elementwise: Callable[[F], F] = partial(_keep, numba.vectorize)
