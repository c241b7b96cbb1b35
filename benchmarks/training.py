"""A step of the training loop against the same network, loss and optimiser in a bare loop, in the same run.

    python -m benchmarks.training [--rounds 60] [--config FILE] [--set KEY=VALUE] [--compile]

With random images of the configuration's size, on a GPU where there is one. The bare loop gets its batches
ready-made and clips as configured; the loop samples, prepares, rotates and augments them, sets the learning
rate, seeds and checks. Steps of both alternate, so that other work on the machine meets both. Both keep the
memory that a step frees for the next one, as `limen train` does; on a CPU a third as many steps are taken
without that, to say what it is worth. `--compile` measures both again with torch.compile of their backbones
and says what that is worth; a backbone of which nothing was compiled is an error, not a figure.
Bars: at most 1.05 x the bare step (median of the ratios of neighbouring steps); on a CPU preparing a batch
takes at most a tenth of the step, so that the cores compute for 90 % of the time (a GPU computes meanwhile).
Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch._dynamo.utils import counters

from api_schemas.config import Config
from api_schemas.preprocessing import ImageInput
from common.progress import silent
from encoder.inputs.image_input import ImagePreprocessing
from training.batches.batch_feed import BatchFeed
from training.batches.batch_inputs import count_forms
from training.batches.samplers import draw_batches
from training.data.items import Items, Splits
from training.loop.loop import Loop
from training.loop.train_state import TrainState
from training.models.network import build_network
from training.objective.objective import Objective
from training.runtime.device import is_bfloat16_enabled
from training.runtime.distributed import Processes
from training.runtime.malloc_tuning import keep_freed_memory

OVERHEAD = 1.05
WAITING = 0.10
ON_GPU = torch.cuda.is_available()
WARM_UP = 5  # steps that are not counted
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
CONFIG = Path(__file__).parents[1] / "configs" / "omniglot.yaml"


def main() -> int:
    """Print the figures; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of limen train")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument(
        "--compile", action="store_true", help="measure again with torch.compile of both backbones"
    )
    options = parser.parse_args()
    config = Config.load(options.config, options.set)
    missed, step_s = _measure(config, options.rounds, compiled=False)
    if options.compile:
        missed_compiled, compiled_step_s = _measure(config, options.rounds, compiled=True)
        missed |= missed_compiled
        print(f"a compiled step takes {compiled_step_s / step_s:.3f} of the time")
    return int(missed)


def _measure(config: Config, rounds: int, compiled: bool) -> tuple[bool, float]:
    """Print the figures of both loops; whether a bar is missed, and the loop's median step in seconds."""
    with TemporaryDirectory() as folder:
        loop = _build_loop(config, Path(folder))
        state = build_state(config, loop.splits)
        if compiled:
            counters.clear()
            for network in (loop.state.network, state.network):
                network.backbone.compile()
        bare = _build_bare_step(config, state)
        plan = draw_batches(loop.inputs.codes, config.sampler, rounds + WARM_UP, seed=1, epoch=0)
        third = plan[: WARM_UP + rounds // 3]
        without = [] if ON_GPU else _alternate(loop, bare, third)[0]
        with keep_freed_memory():
            ours, theirs, preparing = _alternate(loop, bare, plan)
    if compiled and not counters["frames"]["ok"]:
        raise SystemExit("torch.compile compiled nothing: no figures")
    ratio = float(np.median(np.divide(ours, theirs)))
    waiting = np.median(preparing) / np.median(ours)
    batch = config.sampler.batch_size
    precision = "bfloat16" if is_bfloat16_enabled(config, DEVICE) else "float32"
    hardware = torch.cuda.get_device_name() if ON_GPU else f"{torch.get_num_threads()} threads"
    kind = ", compiled" if compiled else ""
    shape = " x ".join(map(str, loop.splits.preprocessing.shape))
    print(f"{config.model.backbone} {precision}{kind}, {shape}, batch {batch}, {hardware}")
    for name, times in (("loop", ours), ("bare", theirs)):
        middle = np.median(times)
        print(f"{name}  {1000 * middle:8.2f} ms a step  {batch / middle:8.0f} images/s")
    print(f"ratio {ratio:.3f} (bar {OVERHEAD})")
    if ON_GPU:
        print(f"preparing a batch {waiting:.1%} of a step, while the GPU computes")
        return ratio > OVERHEAD, float(np.median(ours))
    print(f"keeping freed memory {np.median(ours) / np.median(without):.3f} of a step without")
    print(f"preparing a batch {waiting:.1%} of a step (bar {WAITING:.0%})")
    return bool(ratio > OVERHEAD or waiting > WAITING), float(np.median(ours))


def _build_loop(config: Config, folder: Path) -> Loop:
    """The loop on random images with the shape and the classes of Omniglot's background set."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(764), 20).astype(np.str_)
    side = config.data.image_size or 28
    pixels = random.integers(0, 256, (len(labels), 1, side, side), dtype=np.uint8)
    rule = ImageInput(mode="L", height=side, width=side, mean=[1.0], std=[0.3])
    items = Items(pixels, labels, np.arange(len(labels)).astype(np.str_))
    splits = Splits(items, None, None, ImagePreprocessing(rule))
    state = build_state(config, splits)
    state.progress.planned_steps = 10**6
    return Loop(config, splits, state, state.network, folder, "", Processes(DEVICE), silent, print)


def build_state(config: Config, splits: Splits) -> TrainState:
    torch.manual_seed(0)
    network = build_network(config.model, splits.preprocessing).to(DEVICE)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    objective = Objective(config, splits.train.n_classes * count_forms(config.data.augmentation)).to(DEVICE)
    return TrainState(network, objective, config.optimizer)


def _build_bare_step(config: Config, state: TrainState) -> Callable[[torch.Tensor, torch.Tensor], None]:
    bfloat16 = is_bfloat16_enabled(config, DEVICE)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16):
            embeddings = state.network(inputs)
        state.objective(embeddings, labels).backward()
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.optimizer.clip_norm or math.inf)
        state.optimizer.step()
        state.objective.end_step()
        state.optimizer.zero_grad(set_to_none=True)

    return step


def _alternate(
    loop: Loop, bare: Callable[[torch.Tensor, torch.Tensor], None], plan: list[np.ndarray]
) -> tuple[list[float], list[float], list[float]]:
    ours: list[float] = []
    theirs: list[float] = []
    preparing: list[float] = []
    feed = BatchFeed(plan, 0, loop.config, loop.inputs, loop.processes)
    for rows in plan:
        started = _read_clock()
        ready = loop.inputs(rows, torch.Generator().manual_seed(0))
        preparing.append(_read_clock() - started)
        labels = loop.inputs.get_labels(rows)
        started = _read_clock()
        bare(ready, labels)
        theirs.append(_read_clock() - started)
        started = _read_clock()
        loop.take_step(feed)
        loop.state.update_average()
        ours.append(_read_clock() - started)
    return ours[WARM_UP:], theirs[WARM_UP:], preparing[WARM_UP:]


def _read_clock() -> float:
    """Seconds, once the GPU has finished its queue."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
