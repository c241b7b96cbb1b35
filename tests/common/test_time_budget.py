"""Work that is given up once its time is over, in its own thread alone."""

from __future__ import annotations

import threading

import pytest

from common.time_budget import OutOfTime, TimeBudget, check_time, limit_time


def test_work_is_given_up_after_its_time_and_only_then() -> None:
    check_time()
    with limit_time(TimeBudget()), limit_time(TimeBudget(60)):
        check_time()
        with limit_time(TimeBudget(-1)), pytest.raises(OutOfTime):
            check_time()
        check_time()
    with pytest.raises(OutOfTime), limit_time(TimeBudget(-1)):
        check_time()
    check_time()


def test_work_is_given_up_when_it_is_cancelled() -> None:
    budget = TimeBudget()
    with limit_time(budget):
        check_time()
        budget.cancel()
        with pytest.raises(OutOfTime):
            check_time()


def test_other_threads_have_their_own_time() -> None:
    outcomes: list[str] = []

    def work() -> None:
        check_time()
        outcomes.append("done")

    with limit_time(TimeBudget(-1)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert outcomes == ["done"]
