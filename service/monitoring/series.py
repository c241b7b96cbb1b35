"""Time series of documents of counts: minutes for two days, hours for 90 days, days for ten years."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Protocol

from index.store.monitoring_records import SeriesRow
from service.monitoring.documents import Document, add_document

MINUTE, HOUR, DAY = 60, 3_600, 86_400
KEPT = {MINUTE: 2 * DAY, HOUR: 90 * DAY, DAY: 3_650 * DAY}  # seconds that rows of a resolution are kept
MOST_UNSAVED = 20_000  # rows that wait while the database takes none; the oldest go first

Key = tuple[int, int, str]  # resolution, start, kind


class SeriesStore(Protocol):
    """Where rows are kept."""

    def save_series(self, rows: Sequence[SeriesRow], oldest: Mapping[int, int]) -> None:
        """Write rows, replacing those of the same key, and delete those before ``oldest`` by resolution."""

    def read_series(self, resolution: int, start: int, end: int) -> list[SeriesRow]:
        """Rows with ``start <= row.start < end``, by time."""


class MemorySeries:
    """Rows in the memory of this process, gone when it ends."""

    def __init__(self) -> None:
        self._rows: dict[Key, SeriesRow] = {}

    def save_series(self, rows: Sequence[SeriesRow], oldest: Mapping[int, int]) -> None:
        """Keep rows."""
        kept = {**self._rows, **{(row.resolution, row.start, row.kind): row for row in rows}}
        self._rows = {key: row for key, row in kept.items() if row.start >= oldest.get(row.resolution, 0)}

    def read_series(self, resolution: int, start: int, end: int) -> list[SeriesRow]:
        """Rows of a time."""
        rows = [
            row for row in self._rows.values() if row.resolution == resolution and start <= row.start < end
        ]
        return sorted(rows, key=lambda row: (row.start, row.kind))


class Series:
    """Series whose latest rows are in memory until they are flushed; safe in many threads.

    Every document is added to its minute, hour and day at once, so that nothing is left to roll up, and a
    flush that failed is made up for by the next.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self._open: dict[Key, Document] = {}
        self._unsaved: set[Key] = set()
        self._pruned = 0
        self._lock = Lock()

    def add(self, at: float, documents: Mapping[str, Document]) -> None:
        """Add documents, by kind, of a time in seconds since 1970; none if the store raises."""
        with self._lock:
            keys = {
                (resolution, int(at) // resolution * resolution, kind): document
                for kind, document in documents.items()
                for resolution in KEPT
            }
            self._open |= {key: self._read_row(key) for key in keys if key not in self._open}
            for key, document in keys.items():
                add_document(self._open[key], document)
                self._unsaved.add(key)

    def flush(self, now: float, write: Callable[[Callable[[], None]], None] = lambda work: work()) -> None:
        """Save what was added; on return it is on disk. Raises what the store raises."""
        with self._lock:
            rows = [SeriesRow(*key, self._open[key]) for key in sorted(self._unsaved)]
        if not rows:
            return
        oldest: dict[int, int] = {}
        if now - self._pruned >= HOUR:
            oldest = {resolution: int(now) - kept for resolution, kept in KEPT.items()}
        try:
            write(lambda: self._store.save_series(rows, oldest))
        except BaseException:
            self._drop_oldest()
            raise
        if oldest:
            self._pruned = int(now)
        with self._lock:
            self._unsaved -= {(row.resolution, row.start, row.kind) for row in rows}
            current = {(resolution, int(now) // resolution * resolution) for resolution in KEPT}
            for key in self._open.keys() - self._unsaved:
                if key[:2] not in current:
                    del self._open[key]

    def read(self, resolution: int, start: int, end: int) -> dict[int, dict[str, Document]]:
        """The documents by start and kind, saved or not."""
        found: dict[int, dict[str, Document]] = {}
        for row in self._store.read_series(resolution, start, end):
            found.setdefault(row.start, {})[row.kind] = row.document
        with self._lock:
            for (of, at, kind), document in self._open.items():
                if of == resolution and start <= at < end:
                    copied: Document = {}
                    add_document(copied, document)
                    found.setdefault(at, {})[kind] = copied
        return dict(sorted(found.items()))

    def sum_up(self, resolution: int, start: int, end: int) -> dict[str, Document]:
        """The sum of the documents of a time, by kind."""
        total: dict[str, Document] = {}
        for documents in self.read(resolution, start, end).values():
            add_document(total, documents)
        return total

    def _read_row(self, key: Key) -> Document:
        resolution, start, kind = key
        rows = self._store.read_series(resolution, start, start + 1)
        return next((row.document for row in rows if row.kind == kind), {})

    def _drop_oldest(self) -> None:
        with self._lock:
            for key in sorted(self._unsaved, key=lambda key: key[1])[
                : max(0, len(self._unsaved) - MOST_UNSAVED)
            ]:
                self._unsaved.discard(key)
                del self._open[key]
