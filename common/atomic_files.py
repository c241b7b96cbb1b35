"""Files that are whole or absent, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from common.private_files import open_private

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that after a crash it holds the old content or the new, never a part.

    Args:
        private: nobody but its owner may read it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open_private(temporary, "wb") if private else temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed ``write_atomically`` left in a folder that no other process writes to."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
