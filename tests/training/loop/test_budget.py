"""Number of epochs that a run plans."""

from __future__ import annotations

from typing import Any

from api_schemas.config import Config
from training.loop.budget import Budget
from training.loop.train_state import Progress

STEPS = 10


def plan_epochs(seconds: list[float], **schedule: Any) -> tuple[list[int], list[str]]:
    """The epochs planned after each epoch that took so many seconds, and the messages."""
    config = Config.model_validate(
        {"data": {"builtin": "glyphs"}, "schedule": {"patience": None, **schedule}}
    )
    budget, progress, messages = Budget(config, STEPS), Progress(), []
    budget.plan_run(progress)
    plans = []
    for took in seconds:
        progress.step += STEPS
        progress.seconds += took
        progress.finish_epoch()
        if sentence := budget.update_after_epoch(progress):
            messages.append(sentence)
        plans.append(progress.planned_steps // STEPS)
    return plans, messages


def test_a_slow_first_epoch_does_not_cut_the_run_short() -> None:
    plans, messages = plan_epochs([12.0, 4.0, 4.0, 4.0], epochs=100, minutes=2)
    assert plans == [10, 15, 18, 20]
    assert len(messages) == 1
    assert "planning 10 epochs in 2 minutes" in messages[0]


def test_no_more_epochs_than_wanted() -> None:
    plans, messages = plan_epochs([12.0, 1.0, 1.0], epochs=25, minutes=2)
    assert plans == [10, 18, 25]
    assert len(messages) == 1
    assert plan_epochs([1.0, 1.0], epochs=25, minutes=2) == ([25, 25], [])


def test_the_plan_is_followed_to_its_end() -> None:
    plans, _ = plan_epochs([30.0, 30.0, 30.0, 30.0], epochs=100, minutes=2)
    assert plans == [4, 4, 4, 4], "an epoch more would end half-way, the learning rate not yet down"
