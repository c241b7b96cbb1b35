"""Jobs of several processes: each is done once, and by another process if the one that does it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from index.store.shared.jobs import SharedJobs
from index.store.shared.records import SharedRecords
from service.gallery_work.shared_runner import NotHere, SharedRunner, Work
from tests.index import postgres

SOON = 30.0


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A server."""
    with postgres.running() as address:
        yield address


@pytest.fixture
def start(database: str) -> Iterator[Callable[[Work], SharedRunner]]:
    """Start further processes of one service, each as a runner with its own sessions."""
    with ExitStack() as stack:

        def start(work: Work) -> SharedRunner:
            runner = SharedRunner(stack.enter_context(closing(SharedRecords(database))), {"kind": work})
            stack.callback(runner.close)
            runner.start()
            return runner

        yield start


def submit(runner: SharedRunner, **parameters: Any) -> str:
    return runner.submit("kind", parameters, "a job", "/result", "key").id


def wait_for_end(runner: SharedRunner, job_id: str) -> Any:
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        job = runner.get(job_id)
        assert job is not None
        if job.status in {"done", "failed"}:
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_each_job_is_done_once_and_shown_by_all(start: Callable[[Work], SharedRunner]) -> None:
    done: list[tuple[str, int]] = []
    one = start(lambda parameters, say: done.append(("one", parameters["n"])))
    other = start(lambda parameters, say: done.append(("other", parameters["n"])))
    ids = [submit(runner, n=n) for n, runner in enumerate([one, other] * 5)]
    assert [wait_for_end(other, job_id).status for job_id in ids] == ["done"] * 10
    assert sorted(n for _, n in done) == list(range(10))
    assert one.get("nothing") is None


def test_one_waits_for_all_who_ask(start: Callable[[Work], SharedRunner]) -> None:
    go, begun, done = threading.Event(), threading.Event(), list[int]()

    def work(parameters: dict[str, Any], say: Any) -> None:
        begun.set()
        go.wait(SOON)
        done.append(parameters["n"])

    one, other = start(work), start(work)
    first = submit(one, n=1)
    assert begun.wait(SOON)
    waiting = {submit(runner, n=1) for runner in (one, other, one)}
    assert len(waiting) == 1 != {first} & waiting
    assert submit(other, n=2) not in waiting
    go.set()
    assert wait_for_end(one, *waiting).status == "done"
    assert sorted(done)[:2] == [1, 1]


def test_a_job_whose_process_dies_is_taken_over(database: str, start: Callable[[Work], SharedRunner]) -> None:
    with closing(SharedRecords(database)) as dying:
        jobs = SharedJobs(dying)
        done: list[int] = []
        runner = start(lambda parameters, say: done.append(parameters["n"]))
        with dying.take_turn("job key") as is_ours:  # as a process that does a job of this key
            assert is_ours
            job_id = submit(runner, n=7)
            taken = jobs.get(job_id)
            assert taken is not None
            jobs.update(taken._replace(status="running", attempts=1))
            time.sleep(1.5)
            assert done == [], "it is being done elsewhere"
        assert wait_for_end(runner, job_id).status == "done"
        assert done == [7]


def test_a_job_that_ends_every_process_is_given_up(
    database: str, start: Callable[[Work], SharedRunner]
) -> None:
    with closing(SharedRecords(database)) as dying:
        done: list[int] = []
        runner = start(lambda parameters, say: done.append(parameters["n"]))
        with dying.take_turn("job key"):
            job_id = submit(runner, n=8)
            job = SharedJobs(dying).get(job_id)
            assert job is not None
            SharedJobs(dying).update(job._replace(status="running", attempts=3))
        assert "3 processes" in wait_for_end(runner, job_id).detail
        assert done == []


def test_a_job_is_left_to_those_that_have_its_model(start: Callable[[Work], SharedRunner]) -> None:
    def refuse(parameters: dict[str, Any], say: Any) -> None:
        raise NotHere("not loaded")

    done: list[int] = []
    one = start(refuse)
    job_id = submit(one, n=9)
    time.sleep(0.3)
    other = start(lambda parameters, say: done.append(parameters["n"]))
    assert wait_for_end(other, job_id).status == "done"
    assert done == [9]
