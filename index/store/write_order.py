"""A write as it was ordered: what the audit log says of it, and whether it is still wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

from common.errors import LimenError
from index.store.idempotency import IdempotencyKey


class Withdrawn(LimenError):
    """A write was withdrawn before it was committed, so nothing was changed."""


class AuditFile(Protocol):
    """The file of the audit log; calls return once the lines are on disk, and raise OSError otherwise."""

    def append(self, lines: Sequence[str]) -> None:
        """Add lines."""

    def append_missing(self, lines: Sequence[str]) -> None:
        """Add those of the lines that the file does not hold, as after a crash."""


class WriteOrder:
    """A write that can be withdrawn until its commit begins.

    Attributes:
        ids: the items that were changed, set by the store; None for a write that is about no items.
    """

    def __init__(self, line: Mapping[str, Any] | None = None, key: IdempotencyKey | None = None) -> None:
        """``line`` is what the audit log says of it, without the items; None writes no line.

        ``key`` is kept with the write, which is carried out once.
        """
        self.key = key
        self._line = None if line is None else dict(line)
        self._lock = Lock()
        self._withdrawn = self._committing = False
        self.ids: list[str] | None = None

    def note(self, **details: Any) -> None:
        """Add what was found out meanwhile to the line."""
        if self._line is not None:
            self._line |= details

    def withdraw(self) -> bool:
        """Whether it will not be carried out: False once its commit has begun."""
        with self._lock:
            self._withdrawn = not self._committing
            return self._withdrawn

    def check_wanted(self) -> None:
        """Raises Withdrawn."""
        if self._withdrawn:
            raise Withdrawn("The write was withdrawn before it was carried out: nothing was changed.")

    def begin_commit(self) -> None:
        """From here on it cannot be withdrawn; raises Withdrawn if it was."""
        with self._lock:
            self.check_wanted()
            self._committing = True

    def build_audit_line(self) -> str | None:
        """One line of JSON that names every item that was changed; None where nothing was, or none is kept.

        Numbers beyond 64 bits, which a filter may hold, are written as they are.
        """
        if self._line is None or self.ids == []:
            return None
        about = {} if self.ids is None else {"n": len(self.ids), "ids": sorted(self.ids)}
        return json.dumps({**self._line, **about}, ensure_ascii=False, separators=(",", ":"))
