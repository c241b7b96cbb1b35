"""Files of the data folder that only grow: feedback, history, and the audit log; one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from api_schemas.base import Schema
from api_schemas.files import write_atomically

S = TypeVar("S", bound=Schema)


class Ledger(Generic[S]):
    """Entries of one kind, in memory and on disk; a line torn by a crash is passed over."""

    def __init__(self, file: Path | None, kind: type[S]) -> None:
        self._file = file
        self._lock = Lock()
        self.entries: list[S] = []
        if file is not None and file.exists():
            adapter = TypeAdapter(kind)
            for line in file.read_bytes().splitlines():
                try:
                    self.entries.append(adapter.validate_json(line))
                except ValidationError:
                    continue

    def append(self, entry: S) -> None:
        """Add an entry; on return it is on disk."""
        with self._lock:
            if self._file is not None:
                append_line(self._file, entry.model_dump(mode="json"))
            self.entries = [*self.entries, entry]

    def remove(self, unwanted: Callable[[S], bool]) -> int:
        """Take entries out of memory and disk; returns how many."""
        with self._lock:
            kept = [entry for entry in self.entries if not unwanted(entry)]
            removed = len(self.entries) - len(kept)
            if removed and self._file is not None:
                lines = [orjson.dumps(entry.model_dump(mode="json")) for entry in kept]
                write_atomically(self._file, b"".join(line + b"\n" for line in lines))
            self.entries = kept
            return removed


def append_line(file: Path, content: dict[str, Any]) -> None:
    """Append one JSON line and fsync; a line that a crash tore is ended first."""
    with file.open("a+b") as out:
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write(orjson.dumps(content) + b"\n")
        out.flush()
        os.fsync(out.fileno())


class AuditLog:
    """Who changed what: writes, deletions, activations. Ids, never vectors or keys."""

    SHOWN_IDS = 100

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = Lock()

    def write(
        self, action: str, actor: str, request_id: str, at: str, ids: Collection[str] = (), **more: Any
    ) -> None:
        """Add a line; without a data folder there is nothing that could be changed, and no log."""
        if self._file is None:
            return
        line = {"at": at, "actor": actor, "request_id": request_id, "action": action, **more}
        if ids:
            line |= {"n": len(ids), "ids": sorted(ids)[: self.SHOWN_IDS]}
        with self._lock:
            append_line(self._file, line)
