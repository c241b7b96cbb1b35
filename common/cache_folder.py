"""Where what can be computed again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "LIMEN_CACHE"


def find_cache_folder(name: str) -> Path:
    """The folder for one kind of thing, in the one that ``LIMEN_CACHE`` names, ``~/.cache/limen`` unless set.

    It can be removed at any time. It is not made here.
    """
    given = os.environ.get(CACHE_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(given) if given else home / "limen") / name
