"""Jobs that any process of a service may do: each is done by one, and by another if that one dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any, NamedTuple

import sqlalchemy as sa

from index.store.shared.records import SharedRecords
from index.store.tables import JOBS

KEPT = 200  # jobs that are over
MOST_ATTEMPTS = 3  # processes that may die of one job
_C = JOBS.c
_OPEN = ("waiting", "running")


class SharedJob(NamedTuple):
    """A job: what is to be done, and what is known of it.

    Attributes:
        key: jobs of one key are done one after the other.
        parameters: what it is about.
        attempts: processes that have begun it.
        document: as it is shown.
    """

    id: str
    kind: str
    key: str
    parameters: dict[str, Any]
    status: str
    attempts: int
    document: str


class SharedJobs:
    """Every method is one transaction; on return what was written is on disk."""

    def __init__(self, shared: SharedRecords) -> None:
        self._shared = shared

    def add(self, job: SharedJob) -> SharedJob:
        """Add a job; one of the same key and parameters that waits is returned instead."""
        with self._shared.begin_write() as connection:
            waiting = _SELECT.where(
                _C.key == job.key, _C.parameters == json.dumps(job.parameters), _C.status == "waiting"
            )
            row = connection.execute(waiting).first()
            if row is not None:
                return _to_job(row)
            values = {**job._asdict(), "parameters": json.dumps(job.parameters), "at": time()}
            connection.execute(JOBS.insert().values(**values))
            over = (
                sa.select(_C.at).where(_C.status.not_in(_OPEN)).order_by(_C.at.desc()).offset(KEPT).limit(1)
            )
            connection.execute(JOBS.delete().where(_C.status.not_in(_OPEN), _C.at <= over.scalar_subquery()))
        return job

    def get(self, job_id: str) -> SharedJob | None:
        """The job of an id, or None."""
        rows = self._shared.read_rows(_SELECT.where(_C.id == job_id))
        return _to_job(rows[0]) if rows else None

    def list_open(self) -> list[SharedJob]:
        """The jobs that are not over, the oldest first."""
        rows = self._shared.read_rows(_SELECT.where(_C.status.in_(_OPEN)).order_by(_C.at, _C.id))
        return [_to_job(row) for row in rows]

    @contextmanager
    def take(self, job: SharedJob) -> Iterator[SharedJob | None]:
        """The job as it is now, for this process alone until the block or the process ends; else None."""
        with self._shared.take_turn(f"job {job.key}") as is_ours:
            current = self.get(job.id) if is_ours else None
            yield None if current is None or current.status not in _OPEN else current

    def update(self, job: SharedJob) -> None:
        """Keep what is known of a job now."""
        values = {"status": job.status, "attempts": job.attempts, "document": job.document}
        with self._shared.begin_write() as connection:
            connection.execute(JOBS.update().where(_C.id == job.id).values(**values))


_SELECT = sa.select(_C.id, _C.kind, _C.key, _C.parameters, _C.status, _C.attempts, _C.document)


def _to_job(row: Any) -> SharedJob:
    return SharedJob(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5], row[6])
