"""The audit log of the data folder: one JSON object per line, appended only."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import Any

import orjson


def append_line(file: Path, content: dict[str, Any]) -> None:
    """Append one JSON line and fsync; a line that a crash left unfinished is ended first."""
    with file.open("a+b") as out:
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write(orjson.dumps(content) + b"\n")
        out.flush()
        os.fsync(out.fileno())


class AuditLog:
    """A line per write, deletion and activation, with its actor. It holds ids, never vectors or keys."""

    SHOWN_IDS = 100

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = Lock()

    def write(
        self, action: str, actor: str, request_id: str, at: str, ids: Collection[str] = (), **details: Any
    ) -> None:
        """Add a line; a service without a data folder is read-only and has no log."""
        if self._file is None:
            return
        line = {"at": at, "actor": actor, "request_id": request_id, "action": action, **details}
        if ids:
            line |= {"n": len(ids), "ids": sorted(ids)[: self.SHOWN_IDS]}
        with self._lock:
            append_line(self._file, line)
