"""Learning-rate range test: the loss while the rate rises from step to step, and the rate it suggests."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from api_schemas.config import Config, ScheduleConfig
from common.errors import InputError
from common.progress import Track, silent
from training.batches.batch_feed import BatchFeed
from training.config_checks import check_config
from training.loop.loop import Loop, Say
from training.loop.start_from import adopt_model, open_start
from training.loop.train import build_start_network, build_state, load_splits
from training.runtime.distributed import Processes, join_processes

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
DIVERGED = 4.0  # times the lowest loss


@dataclass(frozen=True)
class RateSweep:
    """Rates that were tried, ascending, the loss at each, smoothed, and the rate of its steepest fall."""

    rates: list[float]
    losses: list[float]
    suggested: float


def find_learning_rate(
    config: Config, *, steps: int = 100, track: Track = silent, say: Say = lambda _: None
) -> RateSweep:
    """Train for some steps at rates from 1e-6 to 1 until the loss diverges (Smith 2017, arXiv 1506.01186).

    The rates of all groups rise together, ``optimizer.lr`` being the one that is named. Nothing is kept.

    Raises:
        InputError: the loss diverged before it fell.
    """
    start = None if config.start_from is None else open_start(config.start_from)
    config = config if start is None else adopt_model(config, start)
    schedule = ScheduleConfig(epochs=1, steps_per_epoch=steps, minutes=None, shape="constant", warmup=0.0)
    config = config.model_copy(update={"schedule": schedule})
    check_config(config)
    with join_processes() as device, TemporaryDirectory() as folder:
        processes = Processes(device)
        torch.manual_seed(config.seed)
        splits = load_splits(config, start, track, say)
        network = build_start_network(config, splits.preprocessing, start).to(device)
        state = build_state(config, splits, network, processes, say)
        loop = Loop(config, splits, state, network, Path(folder), "", processes, track, say)
        return _sweep(loop, steps, track)


def _sweep(loop: Loop, steps: int, track: Track) -> RateSweep:
    state = loop.state
    state.progress.planned_steps, usual = steps, list(state.base_rates)
    plan = loop.plan_epoch()
    feed = BatchFeed(plan, 0, loop.config, loop.inputs, loop.processes, loop.unlabelled)
    state.network.train()
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step, _ in enumerate(track(plan, "rising learning rate", len(plan))):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
        state.base_rates = [group * rate / loop.config.optimizer.lr for group in usual]
        try:
            loss = loop.take_step(feed)
        except InputError:  # it is no number any more
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))
        if losses[-1] > DIVERGED * min(losses) and min(losses) > 0:
            break
        state.progress.add_step(loss)
    return RateSweep(rates, losses, suggest_rate(rates, losses))


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate of the steepest fall of the loss over the logarithm of the rate, before its lowest point.

    Raises:
        InputError: the loss never fell.
    """
    lowest = int(np.argmin(losses)) if len(losses) else 0
    if lowest < 2:
        raise InputError("The loss rose from the first rate on: no learning rate can be suggested.")
    slopes = np.gradient(np.asarray(losses[: lowest + 1]), np.log(rates[: lowest + 1]))
    return float(rates[int(np.argmin(slopes))])


def draw_sweep(sweep: RateSweep) -> bytes:
    """The loss over the rate, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.plot(sweep.rates, sweep.losses)
    axes.axvline(sweep.suggested, linestyle="--", label=f"steepest fall at {sweep.suggested:.1e}")
    axes.set_xscale("log")
    low = min(sweep.losses)
    axes.set_ylim(low - 0.1 * abs(low), min(max(sweep.losses), 2 * sweep.losses[0] + abs(low)))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss, smoothed")
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png")
    return buffer.getvalue()


def round_rate(rate: float) -> float:
    """To one digit and a half: 1, 1.5, 2, 3, 5 or 7 times a power of ten, downwards."""
    power = 10.0 ** math.floor(math.log10(rate))
    return max(step for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if step * power <= rate * (1 + 1e-9)) * power
