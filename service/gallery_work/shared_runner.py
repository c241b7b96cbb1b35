"""Runs the jobs that any process of the service may do: each is done by one, by another if that dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event, Thread
from time import monotonic
from typing import Any

from api_schemas.http.admin import Job
from common.errors import LimenError
from index.store.shared.jobs import MOST_ATTEMPTS, SharedJob, SharedJobs
from index.store.shared.records import SharedRecords
from service.errors.problems import ServiceProblem
from service.gallery_work.run_worker import Report
from service.runtime.job_record import create_job, describe_failure, finish_job
from service.telemetry.logs import LOGGER

LOOK_EVERY = 1.0  # seconds between two looks for jobs of other processes
SAY_EVERY = 1.0  # seconds between two times that progress is written

Work = Callable[[dict[str, Any], Report], object]


class NotHere(LimenError):
    """A job that this process cannot do, as its model is not loaded here; another does it."""


class SharedRunner:
    """A thread that does open jobs, one at a time; ``start`` begins.

    Args:
        kinds: what is done for each kind, given the parameters and what to tell of progress.
    """

    def __init__(self, shared: SharedRecords, kinds: Mapping[str, Work]) -> None:
        self._jobs, self._kinds = SharedJobs(shared), kinds
        self._closing, self._poked = Event(), Event()
        self._thread: Thread | None = None

    def submit(self, kind: str, parameters: Mapping[str, Any], title: str, path: str, key: str) -> Job:
        """Queue work for any process; a job of this key and these parameters that waits is shared."""
        job = create_job(title, path)
        added = SharedJob(job.id, kind, key, dict(parameters), job.status, 0, job.model_dump_json())
        queued = self._jobs.add(added)
        self._poked.set()
        return Job.model_validate_json(queued.document)

    def get(self, job_id: str) -> Job | None:
        """The job of this id, or None."""
        job = self._jobs.get(job_id)
        return None if job is None else Job.model_validate_json(job.document)

    def start(self) -> None:
        """Begin; the models are loaded."""
        self._thread = Thread(target=self._run, name="shared jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the job in progress, which another process does again if it does not end in time."""
        self._closing.set()
        self._poked.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        is_away = False
        while not self._closing.is_set():
            try:
                for job in self._jobs.list_open():
                    if not self._closing.is_set():
                        self._try(job)
                is_away = False
            except Exception as error:  # the database is away, or being closed
                if not is_away and not self._closing.is_set():
                    LOGGER.error("jobs of the service cannot be looked for: %s", str(error).strip())
                is_away = True
            self._poked.wait(LOOK_EVERY)
            self._poked.clear()

    def _try(self, job: SharedJob) -> None:
        with self._jobs.take(job) as ours:
            if ours is None:
                return
            if ours.attempts >= MOST_ATTEMPTS:
                self._update(ours, **finish_job(f"{MOST_ATTEMPTS} processes ended while they did this."))
                return
            begun = ours._replace(attempts=ours.attempts + 1)
            try:
                begun = self._update(begun, status="running")
                self._kinds[ours.kind](ours.parameters, self._make_report(begun))
            except Exception as error:
                failure = describe_failure(ours.id, ours.kind, error)
                # a worker that was stopped with this process is no failure
                is_stopped = self._closing.is_set() and isinstance(error, LimenError | ServiceProblem)
                if is_stopped or isinstance(error, NotHere):
                    self._update(ours, status="waiting")
                else:
                    self._update(begun, **finish_job(failure))
            else:
                self._update(begun, **finish_job())

    def _make_report(self, job: SharedJob) -> Report:
        said = monotonic()

        def report(step: str, progress: float | None) -> None:
            nonlocal said
            if monotonic() - said >= SAY_EVERY:
                said = monotonic()
                self._update(job, step=step, progress=progress)

        return report

    def _update(self, job: SharedJob, **changes: object) -> SharedJob:
        shown = Job.model_validate_json(job.document).model_copy(update=changes)
        job = job._replace(status=shown.status, document=shown.model_dump_json())
        self._jobs.update(job)
        return job
