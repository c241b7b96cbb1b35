"""What takes long is done behind, one after the other, and asked about by id."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Lock

from api_schemas.http.admin import Job
from common.errors import LimenError
from service.errors.problems import OVERLOADED, ServiceProblem
from service.telemetry.logs import LOGGER

KEPT = 200
MOST_WAITING = 16


class BackgroundJobs:
    """Jobs of this process; the last 200 can be asked about."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._lock = Lock()
        self._jobs: dict[str, Job] = {}
        self._same: dict[str, str] = {}

    def submit(self, kind: str, work: Callable[[], object], path: str, same: str | None = None) -> Job:
        """Queue work; ``path`` is where its result can be read.

        Work of the ``same`` name that has not begun yet does for both: its job is given. Such work is taken
        however many wait: there is one of a name, and what asks for it may have been done already.

        Raises:
            ServiceProblem: ``overloaded`` (429), when too many wait.
        """
        with self._lock:
            waiting = self._jobs.get(self._same.get(same, "")) if same is not None else None
            if waiting is not None and waiting.status == "waiting":
                return waiting
            waiting_now = sum(job.status == "waiting" for job in self._jobs.values())
            if same is None and waiting_now >= MOST_WAITING:
                raise ServiceProblem(
                    OVERLOADED,
                    f"{MOST_WAITING} jobs are waiting: try again later.",
                    headers={"Retry-After": "10"},
                )
            job = Job(
                id=secrets.token_hex(8),
                kind=kind,
                status="waiting",
                created_at=datetime.now(UTC),
                finished_at=None,
                detail=None,
                path=path,
            )
            self._jobs[job.id] = job
            if same is not None:
                self._same[same] = job.id
            while len(self._jobs) > KEPT:
                self._jobs.pop(next(iter(self._jobs)))
        self._pool.submit(self._run, job, work)
        return job

    def get(self, job_id: str) -> Job | None:
        """A job by its id, or None."""
        return self._jobs.get(job_id)

    def close(self) -> None:
        """Let the running job end and forget those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job, work: Callable[[], object]) -> None:
        self._put(job.model_copy(update={"status": "running"}))
        status, detail = "done", None
        try:
            work()
        except (LimenError, ServiceProblem) as error:
            status, detail = "failed", str(error)
        except Exception:
            LOGGER.exception("job failed", extra={"fields": {"job": job.id, "kind": job.kind}})
            status, detail = "failed", "It failed on our side; the log has it under this job's id."
        self._put(
            job.model_copy(update={"status": status, "detail": detail, "finished_at": datetime.now(UTC)})
        )

    def _put(self, job: Job) -> None:
        with self._lock:
            if job.id in self._jobs:
                self._jobs[job.id] = job
