"""Files and folders that only their owner reads: 600 and 700, as long as they exist."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def open_private(file: Path, mode: str) -> IO[Any]:
    """Open a file for writing; it is made for its owner alone, also while it is written."""
    return open(file, mode, opener=lambda name, flags: os.open(name, flags, FILE_MODE))


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner alone; one that is there and empty is closed to others, too.

    A folder that holds anything is left as it is: it may be one that others need, like ``/tmp``.
    """
    made = not folder.exists()
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with suppress(PermissionError):  # another's folder, which a container mounts
        if made or not any(folder.iterdir()):
            folder.chmod(FOLDER_MODE)


def close_to_others(path: Path) -> None:
    """Take the rights of others from a file or folder, if it is there, and all that is in it.

    Links are not followed.
    """
    with suppress(PermissionError, FileNotFoundError):
        _restrict(path)
        if path.is_dir() and not path.is_symlink():
            for name in path.rglob("*"):
                _restrict(name)


def _restrict(path: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode):
        wanted = FOLDER_MODE if stat.S_ISDIR(mode) else FILE_MODE
        if stat.S_IMODE(mode) & ~wanted:
            path.chmod(stat.S_IMODE(mode) & wanted)
