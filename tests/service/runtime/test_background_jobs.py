"""Background jobs: one after the other, bounded in number, shared by key until they begin."""

from __future__ import annotations

import threading
import time

import pytest

from service.errors.problems import ServiceProblem
from service.runtime.background_jobs import MOST_WAITING, BackgroundJobs


def test_the_same_work_waits_once_and_is_done_again_after_it_began() -> None:
    jobs, go, done = BackgroundJobs(), threading.Event(), list[str]()

    def hold() -> None:
        go.wait(20)
        done.append("hold")

    def rebuild() -> None:
        go.wait(20)
        done.append("rebuild")

    jobs.submit("hold", hold, "/")
    submitted = [jobs.submit("rebuild", rebuild, "/", "one") for _ in range(3 * MOST_WAITING)]
    assert len({job.id for job in submitted}) == 1
    assert jobs.submit("rebuild", rebuild, "/", "other").id != submitted[0].id
    go.set()
    until = time.monotonic() + 20
    while len(done) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert done == ["hold", "rebuild", "rebuild"]
    assert jobs.submit("rebuild", rebuild, "/", "one").id != submitted[0].id
    jobs.close()


def test_what_waits_is_bounded() -> None:
    jobs, go, began = BackgroundJobs(), threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go.wait(20)

    jobs.submit("hold", hold, "/")
    began.wait(20)
    for number in range(MOST_WAITING):
        jobs.submit(f"work {number}", go.wait, "/")
    with pytest.raises(ServiceProblem, match="jobs are waiting") as refusal:
        jobs.submit("one more", go.wait, "/")
    assert refusal.value.kind.status == 429
    rebuild = jobs.submit("rebuild", go.wait, "/", "one")
    assert rebuild.status == "waiting", "the deletion that asks for it has been done"
    go.set()
    jobs.close()
