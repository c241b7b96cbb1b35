"""Alerts of several services on one PostgreSQL: one of them raises them, by the worst of what any reads."""

from __future__ import annotations

from contextlib import closing

import pytest
import sqlalchemy as sa

from api_schemas.http.monitoring import Reading
from index.store.shared.records import SharedRecords
from service.monitoring import worker_share
from service.monitoring.worker_share import ReplicaShare
from tests.index import postgres


def read(value: float) -> dict[str, Reading]:
    return {"drift": Reading(signal="drift", value=value, lower=None, detail="")}


def test_one_leads_until_it_ends_and_the_worst_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        postgres.running_server() as server,
        closing(SharedRecords(server.address)) as records,
        closing(SharedRecords(server.address)) as others,
    ):
        one, other = ReplicaShare(records), ReplicaShare(others)
        assert [one.lead(), other.lead(), one.lead(), other.lead()] == [True, False, True, False]
        assert one.merge_readings(read(0.9)) == read(0.9)
        assert other.merge_readings(read(0.5)) == read(0.9)
        assert one.merge_readings(read(0.4)) == read(0.5), "the other's is the worst by now"
        now = worker_share.time()
        monkeypatch.setattr(worker_share, "time", lambda: now + 1_000)
        assert other.merge_readings(read(0.1)) == read(0.1), "of a process that is gone nothing counts"

        server.stop()
        assert [one.lead(), other.lead()] == [True, False], "while it is away nothing changes"
        assert one.merge_readings(read(0.2)) == read(0.2)
        server.start()
        assert sorted([one.lead(), other.lead()]) == [False, True]

        engine = sa.create_engine(server.address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:  # as when its process is killed
            ended = "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks"
            connection.execute(sa.text(f"{ended} WHERE locktype = 'advisory' AND granted"))
        engine.dispose()
        one.close()
        assert other.lead() or other.lead()
        other.close()
