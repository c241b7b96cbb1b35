"""Time series: sums by minute, hour and day, kept through restarts and failed flushes."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import LimenError
from index.store.item_store import ItemStore
from index.store.monitoring_records import MonitoringRecords
from service.monitoring.documents import Document, add_document, describe_value
from service.monitoring.series import DAY, HOUR, KEPT, MINUTE, MemorySeries, Series
from tests.index import postgres

NOW = 1_700_000_000 // DAY * DAY + 7 * HOUR  # the start of an hour


def count(n: int) -> dict[str, Document]:
    return {"decisions": {"match": {"point": {"n": n, "scores": [0, n]}}}}


def read_n(series: Series, resolution: int, start: int, end: int) -> dict[int, int]:
    found = series.read(resolution, start, end)
    return {at: documents["decisions"]["match"]["point"]["n"] for at, documents in found.items()}


def test_every_resolution_has_the_sum_of_its_period() -> None:
    series = Series(MemorySeries())
    for offset, n in ((0, 1), (59, 2), (60, 4), (HOUR, 8), (DAY, 16)):
        series.add(NOW + offset, count(n))
    end = NOW + 2 * DAY
    assert read_n(series, MINUTE, NOW, end) == {NOW: 3, NOW + 60: 4, NOW + HOUR: 8, NOW + DAY: 16}
    assert read_n(series, HOUR, NOW, end) == {NOW: 7, NOW + HOUR: 8, NOW + DAY: 16}
    midnight = NOW // DAY * DAY
    assert read_n(series, DAY, midnight, end) == {midnight: 15, midnight + DAY: 16}
    assert series.sum_up(MINUTE, NOW, end)["decisions"]["match"]["point"]["scores"] == [0, 31]


def test_a_restart_goes_on_where_the_last_flush_was(tmp_path: Path) -> None:
    for n in (1, 2, 4):
        store = ItemStore(tmp_path / "limen.sqlite")
        series = Series(MonitoringRecords(store))
        series.add(NOW, count(n))
        series.flush(NOW)
        series.add(NOW, count(100))  # lost: the process ends before the next flush
        store.close()
    store = ItemStore(tmp_path / "limen.sqlite")
    kept = Series(MonitoringRecords(store))
    assert [read_n(kept, resolution, 0, NOW + 1) for resolution in KEPT] == [
        {NOW // resolution * resolution: 7} for resolution in KEPT
    ]
    store.close()


def test_what_a_flush_could_not_save_is_saved_by_the_next() -> None:
    class Full(MemorySeries):
        full = True

        def add_series(self, *rows: object) -> None:
            if self.full:
                raise LimenError("the disk is full")
            super().add_series(*rows)  # type: ignore[arg-type]

    store = Full()
    series = Series(store)
    for minute in range(3):
        series.add(NOW + 60 * minute, count(1))
        with pytest.raises(LimenError):
            series.flush(NOW + 60 * minute)
    assert sum(read_n(series, MINUTE, 0, NOW + DAY).values()) == 3, "it is answered meanwhile"
    store.full = False
    series.flush(NOW + 200)
    assert len(store.read_series(MINUTE, 0, NOW + DAY)) == 3
    assert len(store.read_series(HOUR, 0, NOW + DAY)) == 1


def test_old_rows_go(tmp_path: Path) -> None:
    store = ItemStore(tmp_path / "limen.sqlite")
    records = MonitoringRecords(store)
    series = Series(records)
    for age in (0, 3 * DAY, 100 * DAY, 4_000 * DAY):
        series.add(NOW - age, count(1))
    series.flush(NOW)
    rows = {resolution: len(records.read_series(resolution, 0, NOW + 1)) for resolution in KEPT}
    assert rows == {MINUTE: 1, HOUR: 2, DAY: 3}
    store.close()


def test_processes_add_to_the_same_rows(tmp_path: Path) -> None:
    stores = [ItemStore(tmp_path / "limen.sqlite") for _ in range(2)]
    several = [Series(MonitoringRecords(store)) for store in stores]
    for turn in range(3):
        for n, series in enumerate(several, 1):
            series.add(NOW + turn, count(n))
            series.add(NOW + turn, {"readings": {"drift": describe_value(turn + n / 10)}})
            series.flush(NOW + turn)
    for series in several:
        assert [read_n(series, resolution, 0, NOW + 1) for resolution in KEPT] == [
            {NOW // resolution * resolution: 9} for resolution in KEPT
        ]
    several[0].add(NOW, count(100))
    assert read_n(several[0], MINUTE, 0, NOW + 1) == {NOW: 109}, (
        "what waits is answered, by its process alone"
    )
    found = several[1].read(MINUTE, 0, NOW + 1)[NOW]
    assert found["decisions"]["match"]["point"] == {"n": 9, "scores": [0, 9]}
    assert found["readings"]["drift"] == {"n": 6, "sum": pytest.approx(6.9), "max": 2.2, "last": 2.2}
    for store in stores:
        store.close()


def test_measurements_add_up_to_mean_largest_and_latest() -> None:
    total: Document = {}
    for value in (0.5, 0.9, 0.7):
        add_document(total, {"drift": describe_value(value)})
    assert total["drift"] == {"n": 3, "sum": pytest.approx(2.1), "max": 0.9, "last": 0.7}


def test_series_and_alerts_are_kept_in_postgresql_as_well() -> None:
    with postgres.running() as database:
        for total in (3, 6):
            store = ItemStore(database, "model")
            records = MonitoringRecords(store)
            series = Series(records)
            series.add(NOW, count(1))
            series.flush(NOW)
            series.add(NOW, count(2))
            series.flush(NOW)
            assert read_n(series, HOUR, 0, NOW + 1) == {NOW: total}
            records.save_alerts({f"a-{total}": (total, "{}"), f"b-{total}": (0, "[]")}, keep=2)
            store.close()
        store = ItemStore(database, "model")
        assert len(MonitoringRecords(store).read_alerts(10)) == 2
        assert MonitoringRecords(store).read_written_items(10) == ([], [])
        store.close()
