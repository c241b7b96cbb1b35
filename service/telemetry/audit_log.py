"""The audit log of the data folder: one JSON object per line, appended only."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from common.private_files import open_private
from index.store.shared.records import SharedRecords


def append_lines(file: Path, lines: Sequence[str]) -> None:
    """Append lines and fsync; a line that a crash left unfinished is ended first."""
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    with open_private(file, "a+b") as out:
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                content = b"\n" + content
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


class AuditLog:
    """A line per write, deletion and activation, with its actor. It holds ids, never vectors or keys.

    Lines about items, feedback and operating points are kept in the transaction of the write and come from
    there (``index.store.write_order``), so that none is missing after a crash.
    """

    def __init__(self, file: Path | None, shared: SharedRecords | None = None) -> None:
        """``shared`` keeps the lines instead of the file, where several processes are one service."""
        self._file = file
        self._shared = shared
        self._lock = Lock()

    def append(self, lines: Sequence[str]) -> None:
        """Add lines that the item store has kept; a service without a data folder has no log."""
        if self._shared is not None:
            self._shared.add_audit_lines(lines)
            return
        if self._file is None:
            return
        with self._lock:
            append_lines(self._file, lines)

    def append_missing(self, lines: Sequence[str]) -> None:
        """Add those of the lines that the log does not hold, as after a crash."""
        if self._file is None or self._shared is not None or not lines:
            return
        missing = dict.fromkeys(lines)
        with self._lock:
            if self._file.exists():
                with self._file.open(encoding="utf-8", errors="replace", newline="\n") as kept:
                    for line in kept:
                        missing.pop(line.removesuffix("\n"), None)
            if missing:
                append_lines(self._file, list(missing))

    def write(self, line: dict[str, Any], ids: Collection[str] = ()) -> None:
        """Add a line about what is kept outside an item store."""
        about = {"n": len(ids), "ids": sorted(ids)} if ids else {}
        self.append([json.dumps({**line, **about}, ensure_ascii=False, separators=(",", ":"))])
