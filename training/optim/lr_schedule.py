"""Learning-rate schedules over the fraction of the run that is done."""

from __future__ import annotations

import math

from api_schemas.config import ScheduleConfig

LOWEST = 0.01  # of the top rate: a cosine that ends at zero wastes its last steps


def compute_lr_factor(step: int, total: int, schedule: ScheduleConfig) -> float:
    """Factor on the learning rate for a step (from 0) of a run of ``total`` steps.

    ``cosine``: linear warm-up, then half a cosine down. ``one_cycle`` (Smith 2018, arXiv 1803.09820): a
    cosine up over the first 30 %, then one down. ``constant``: warm-up only.
    """
    done = min(1.0, (step + 1) / max(1, total))
    warm = max(schedule.warmup, 0.3) if schedule.shape == "one_cycle" else schedule.warmup
    if done < warm:
        rise = done / warm
        return 0.5 - 0.5 * math.cos(math.pi * rise) if schedule.shape == "one_cycle" else rise
    if schedule.shape == "constant":
        return 1.0
    fall = (done - warm) / max(1e-12, 1 - warm)
    return LOWEST + (1 - LOWEST) * (0.5 + 0.5 * math.cos(math.pi * fall))
