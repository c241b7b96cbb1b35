"""The length of a run: its planned steps, cut by patience and by the minutes it may take."""

from __future__ import annotations

from api_schemas.config import Config
from training.loop.train_state import Progress


class Budget:
    """Sets ``Progress.planned_steps`` as the schedule says, and says why.

    Args:
        steps_per_epoch: batches in an epoch.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.schedule, self.every, self.steps = config.schedule, config.evaluation.every, steps_per_epoch

    def plan_run(self, progress: Progress) -> None:
        """Plan the whole schedule, unless a resumed run has its plan."""
        progress.planned_steps = progress.planned_steps or self.steps * self.schedule.epochs

    def end_if_time_is_over(self, progress: Progress) -> str | None:
        """End the run here when its minutes are over."""
        minutes = self.schedule.minutes
        if minutes is None or progress.seconds <= 60 * minutes:
            return None
        progress.planned_steps = progress.step
        return f"The {minutes:g} minutes of schedule.minutes are over."

    def update_after_epoch(self, progress: Progress) -> str | None:
        """End the run when it no longer gets better; plan as many of its epochs as fit in the time.

        A learning rate that was planned for more epochs than fit would never come down; the first epochs are
        often slow, so the plan is updated after each.
        """
        patience, minutes = self.schedule.patience, self.schedule.minutes
        if progress.step >= progress.planned_steps:
            return None
        waited = progress.epoch - progress.best_epoch
        if patience is not None and progress.best is not None and waited >= patience * self.every:
            progress.planned_steps = progress.step
            return f"Stopping early: {waited} epochs without a better figure."
        if minutes is None:
            return None
        per_epoch = progress.seconds / progress.epoch
        possible = progress.epoch + max(1, int((60 * minutes - progress.seconds) / per_epoch))
        full_plan = self.steps * self.schedule.epochs
        is_first_cut = progress.planned_steps == full_plan
        progress.planned_steps = min(possible * self.steps, full_plan)
        if progress.planned_steps == full_plan or not is_first_cut:  # an epoch's line says how long is left
            return None
        return f"An epoch takes {per_epoch:.0f} s: planning {possible} epochs in {minutes:g} minutes."
