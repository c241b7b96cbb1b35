"""Time series of documents of counts: minutes for two days, hours for 90 days, days for ten years."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from threading import Lock
from typing import Protocol

from index.store.monitoring_records import SeriesRow
from service.monitoring.documents import Document, add_document

MINUTE, HOUR, DAY = 60, 3_600, 86_400
KEPT = {MINUTE: 2 * DAY, HOUR: 90 * DAY, DAY: 3_650 * DAY}  # seconds that rows of a resolution are kept
MOST_UNSAVED = 20_000  # rows that wait while the database takes none; the oldest go first

Key = tuple[int, int, str]  # resolution, start, kind


class SeriesStore(Protocol):
    """Where rows are kept, perhaps those of several processes."""

    def add_series(
        self, rows: Sequence[SeriesRow], oldest: Mapping[int, int], add: Callable[[Document, Document], None]
    ) -> None:
        """Add rows to those of the same key, and delete those before ``oldest`` by resolution."""

    def read_series(self, resolution: int, start: int, end: int) -> list[SeriesRow]:
        """Rows with ``start <= row.start < end``, by time."""


class MemorySeries:
    """Rows in the memory of this process, gone when it ends."""

    def __init__(self) -> None:
        self._rows: dict[Key, Document] = {}

    def add_series(
        self, rows: Sequence[SeriesRow], oldest: Mapping[int, int], add: Callable[[Document, Document], None]
    ) -> None:
        """Keep rows; readers meanwhile see the rows as they were."""
        kept = {key: document for key, document in self._rows.items() if key[1] >= oldest.get(key[0], 0)}
        for row in rows:
            key = row.resolution, row.start, row.kind
            total: Document = {}
            add(total, kept.get(key, {}))
            add(total, row.document)
            if row.start >= oldest.get(row.resolution, 0):
                kept[key] = total
        self._rows = kept

    def read_series(self, resolution: int, start: int, end: int) -> list[SeriesRow]:
        """Rows of a time."""
        rows = [
            SeriesRow(*key, document)
            for key, document in self._rows.items()
            if key[0] == resolution and start <= key[1] < end
        ]
        return sorted(rows, key=lambda row: (row.start, row.kind))


class Series:
    """Series to which this process adds; safe in many threads.

    Every document is added to its minute, hour and day at once, so that nothing is left to roll up. What was
    added waits in memory until it is flushed, also while the store takes nothing.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self._waiting: dict[Key, Document] = {}
        self._pruned = 0
        self._lock = Lock()
        self._saving = Lock()  # what is read has every count once

    def add(self, at: float, documents: Mapping[str, Document]) -> None:
        """Add documents, by kind, of a time in seconds since 1970."""
        with self._lock:
            for kind, document in documents.items():
                for resolution in KEPT:
                    key = resolution, int(at) // resolution * resolution, kind
                    add_document(self._waiting.setdefault(key, {}), document)

    def flush(self, now: float) -> None:
        """Save what was added; on return it is on disk. Raises what the store raises."""
        with self._saving:
            self._flush(now)

    def _flush(self, now: float) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, {}
        if not taken:
            return
        oldest: dict[int, int] = {}
        if now - self._pruned >= HOUR:
            oldest = {resolution: int(now) - kept for resolution, kept in KEPT.items()}
        rows = [SeriesRow(*key, taken[key]) for key in sorted(taken)]
        try:
            self._store.add_series(rows, oldest, add_document)
        except BaseException:
            with self._lock:
                for key, document in self._waiting.items():
                    add_document(taken.setdefault(key, {}), document)
                latest = sorted(taken, key=lambda key: key[1])[-MOST_UNSAVED:]
                self._waiting = {key: taken[key] for key in latest}
            raise
        if oldest:
            self._pruned = int(now)

    def read(self, resolution: int, start: int, end: int) -> dict[int, dict[str, Document]]:
        """The documents by start and kind, saved or not."""
        found: dict[int, dict[str, Document]] = {}
        with self._saving:
            rows = self._store.read_series(resolution, start, end)
            with self._lock:
                waiting = deepcopy(self._waiting)
        for row in rows:
            found.setdefault(row.start, {})[row.kind] = row.document
        for (of, at, kind), document in waiting.items():
            if of == resolution and start <= at < end:
                total = deepcopy(found.setdefault(at, {}).get(kind, {}))
                add_document(total, document)
                found[at][kind] = total
        return dict(sorted(found.items()))

    def sum_up(self, resolution: int, start: int, end: int) -> dict[str, Document]:
        """The sum of the documents of a time, by kind."""
        total: dict[str, Document] = {}
        for documents in self.read(resolution, start, end).values():
            add_document(total, documents)
        return total
