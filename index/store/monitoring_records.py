"""Time series and alerts of a service, kept in the item store of its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import sqlalchemy as sa

from index.store.item_store import ItemStore
from index.store.tables import ALERTS, ITEMS, SERIES
from index.store.write_order import WriteOrder


class SeriesRow(NamedTuple):
    """The counts of one kind in one period.

    Attributes:
        resolution: length of the period, in seconds.
        start: its start, in seconds since 1970.
        kind: of what.
        document: the counts.
    """

    resolution: int
    start: int
    kind: str
    document: dict[str, Any]


class MonitoringRecords:
    """Every method is one transaction; on return what was written is on disk."""

    def __init__(
        self, store: ItemStore, writing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._store = store
        self._writing = writing

    def add_series(
        self, rows: Sequence[SeriesRow], oldest: Mapping[int, int], add: Callable[[Any, Any], None]
    ) -> None:
        """Add rows to those of the same period and kind, whichever process wrote them.

        Args:
            oldest: by resolution the start before which rows are deleted.
            add: adds the second document to the first, in place.
        """
        with self._writing(), self._store._begin_write() as connection:
            merged = []
            for row in rows:
                of_key = (
                    (SERIES.c.resolution == row.resolution)
                    & (SERIES.c.start == row.start)
                    & (SERIES.c.kind == row.kind)
                )
                before = connection.execute(sa.select(SERIES.c.document).where(of_key)).scalar()
                total = json.loads(before) if before else {}
                add(total, row.document)
                merged.append(row._asdict() | {"document": json.dumps(total)})
            self._store._upsert(connection, SERIES, merged)
            for resolution, start in oldest.items():
                connection.execute(
                    SERIES.delete().where((SERIES.c.resolution == resolution) & (SERIES.c.start < start))
                )

    def read_series(self, resolution: int, start: int, end: int) -> list[SeriesRow]:
        """Rows with ``start <= row.start < end``, by time."""
        statement = (
            sa.select(SERIES.c.resolution, SERIES.c.start, SERIES.c.kind, SERIES.c.document)
            .where((SERIES.c.resolution == resolution) & (SERIES.c.start >= start) & (SERIES.c.start < end))
            .order_by(SERIES.c.start, SERIES.c.kind)
        )
        return [
            SeriesRow(row[0], row[1], row[2], json.loads(row[3])) for row in self._store.read_rows(statement)
        ]

    def save_alerts(
        self, alerts: Mapping[str, tuple[int, str]], keep: int, order: WriteOrder | None = None
    ) -> None:
        """Write alerts by id, each with the second it began and as JSON; only the latest ``keep`` stay."""
        rows = [
            {"id": name, "started": started, "document": document}
            for name, (started, document) in alerts.items()
        ]
        latest = sa.select(ALERTS.c.id).order_by(ALERTS.c.started.desc(), ALERTS.c.id).limit(keep)
        with self._writing():
            self._store.write_rows(ALERTS, rows, ALERTS.c.id.not_in(latest), order)

    def read_alerts(self, limit: int) -> list[str]:
        """The latest alerts as JSON, the last to begin first."""
        statement = sa.select(ALERTS.c.document).order_by(ALERTS.c.started.desc(), ALERTS.c.id).limit(limit)
        return [row[0] for row in self._store.read_rows(statement)]

    def read_written_items(self, limit: int) -> tuple[list[bytes], list[str]]:
        """Vectors, float32 as bytes, and labels of the items written last since the bundle was made."""
        statement = (
            sa.select(ITEMS.c.vector, ITEMS.c.label)
            .where(ITEMS.c.sequence > 0)
            .order_by(ITEMS.c.sequence.desc(), ITEMS.c.id)
            .limit(limit)
        )
        rows = self._store.read_rows(statement)
        return [row[0] for row in rows], [row[1] for row in rows]
