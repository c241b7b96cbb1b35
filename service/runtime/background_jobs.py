"""Background jobs: run one after the other, polled by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from api_schemas.http.admin import Job
from service.errors.problems import OVERLOADED, ServiceProblem
from service.runtime.job_record import create_job, describe_failure, finish_job

T = TypeVar("T")
KEPT = 200
MOST_WAITING = 16


class BackgroundJobs:
    """The jobs of this process, run on one thread; the last 200 are remembered."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._lock = Lock()
        self._jobs: dict[str, Job] = {}
        self._last_of_key: dict[str, str] = {}
        self._running: Job | None = None

    def submit(self, kind: str, work: Callable[[], object], path: str, key: str | None = None) -> Job:
        """Queue work; ``path`` is where its result can be read.

        Work with a ``key`` is shared: a waiting job of that key is returned instead of a second one. It is
        accepted however many jobs wait, because there is one of a key, and because the change that needs it
        may already have been made.

        Raises:
            ServiceProblem: ``overloaded`` (429), when too many wait.
        """
        with self._lock:
            shared = self._jobs.get(self._last_of_key.get(key, "")) if key is not None else None
            if shared is not None and shared.status == "waiting":
                return shared
            waiting = sum(job.status == "waiting" for job in self._jobs.values())
            if key is None and waiting >= MOST_WAITING:
                raise ServiceProblem(
                    OVERLOADED,
                    f"{MOST_WAITING} jobs are waiting: try again later.",
                    headers={"Retry-After": "10"},
                )
            job = create_job(kind, path)
            self._jobs[job.id] = job
            if key is not None:
                self._last_of_key[key] = job.id
            while len(self._jobs) > KEPT:
                self._jobs.pop(next(iter(self._jobs)))
        self._pool.submit(self._run, job, work)
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of this id, or None."""
        return self._jobs.get(job_id)

    def track(self, steps: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
        """Report the steps of the running job as its progress; for the work of a job to call."""
        shown = 0
        for done, step in enumerate(steps):
            part = int(100 * done / total) if total else 0
            if done == 0 or part > shown:
                shown = part
                self.report(name, min(1.0, done / total) if total else None)
            yield step

    def report(self, step: str, progress: float | None) -> None:
        """Say what the running job does now, and which part of it is done; for the work of a job to call."""
        if self._running is not None:
            self._update(self._running, step=step, progress=progress)

    def close(self) -> None:
        """Wait for the running job and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job, work: Callable[[], object]) -> None:
        self._running = job
        self._update(job, status="running")
        failure = None
        try:
            work()
        except Exception as error:
            failure = describe_failure(job.id, job.kind, error)
        self._running = None
        self._update(job, **finish_job(failure))

    def _update(self, job: Job, **changes: object) -> None:
        with self._lock:
            if job.id in self._jobs:
                self._jobs[job.id] = self._jobs[job.id].model_copy(update=changes)
