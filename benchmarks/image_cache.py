"""Training on images that do not fit into memory, against the same images in memory.

    python -m benchmarks.image_cache [--images 20000] [--side 128] [--rounds 40 | --whole-epoch] [--folder F]

Writes so many JPEG files (pictures of 100 images a class, each with a number behind its end, so that no two
files are equal), fills the cache in a process that is killed by SIGKILL on the way, fills the rest in
another, and trains in a third for one epoch, whose peak resident memory is read. Then ten steps with images
of the whole set from the cache and ten with 5,000 images in memory alternate, so that other work on the
machine meets both; a small network leaves the reading in sight. ``--whole-epoch`` goes on until the cache
has given every step of an epoch. Each figure is printed as soon as it is known.
Bars: at most 2 GiB of resident memory; a step at most 1.1 x that from memory (median of the ratios of
neighbouring tens); the second process decodes what the first had not written, and no more.
Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from api_schemas.config import Config
from benchmarks.training import build_state
from common.progress import silent
from training.batches.batch_feed import BatchFeed
from training.batches.samplers import draw_batches
from training.data.image_files import ImageFile
from training.data.items import Items
from training.data.load_data import load_data
from training.loop.loop import Loop
from training.loop.train import train
from training.runtime.distributed import Processes
from training.runtime.malloc_tuning import keep_freed_memory

MOST_GIB, SLOWEST = 2.0, 1.1
PER_CLASS = 100
IN_MEMORY = 5_000  # images of the steps from memory
AT_A_TIME = 10  # steps of one kind in a row: what is read ahead is read in steps of its own kind


def main() -> int:
    """Print the figures; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--whole-epoch", action="store_true", help="as many rounds as an epoch has steps")
    parser.add_argument("--folder", type=Path, help="where there is room; a temporary one unless given")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        os.environ["LIMEN_CACHE"] = str(folder / "cache")
        write_images(folder / "images", options.images, options.side)
        config = build_config(folder / "images", options.side)
        first = run_apart(fill, config, options.images // 3)
        second = run_apart(fill, config, None)
        size = next((folder / "cache").glob("decoded/*/content.bin")).stat().st_size
        shape = f"3 x {options.side} x {options.side}"
        say(f"{options.images:,} images of {shape}, {size / 2**30:.2f} GiB decoded")
        say(
            f"killed after {first['decoded']:,} images, then {second['decoded']:,} decoded by another process"
        )
        per_second = second["decoded"] / second["cpu_s"]
        say(f"filling: {per_second:.0f} images a second of processor time, peak {second['peak_gib']:.2f} GiB")
        trained = run_apart(train_apart, config, folder / "run")
        known_us = trained["load_s"] / options.images * 1e6
        say(f"known already: {known_us:.0f} µs an image, processor time")
        say(f"training: peak {trained['peak_gib']:.2f} GiB of resident memory (bar {MOST_GIB})")
        compared = run_apart(compare_steps, config, None if options.whole_epoch else options.rounds, folder)
        ratio = compared["ratio"]
        say(f"step from the cache {ratio:.3f} of one from memory (bar {SLOWEST})")
        say(
            f"{compared['steps']} steps of each: {compared['cached']:.0f} images/s from the cache, "
            f"{compared['kept']:.0f} from memory"
        )
    again = first["decoded"] + second["decoded"] - options.images
    # the killed process decoded a block that it did not write
    is_whole = size == options.images * 3 * options.side**2 and again <= 2 * 512
    return int(ratio > SLOWEST or trained["peak_gib"] > MOST_GIB or not is_whole)


def say(sentence: str) -> None:
    """Print at once, so that nothing is lost when a later step is cut."""
    print(sentence, flush=True)


def write_images(folder: Path, count: int, side: int) -> None:
    """Classes of 100 JPEG files, four pictures each and a number behind the end of the image."""
    random = np.random.default_rng(0)
    for start in tqdm(range(0, count, PER_CLASS), "writing images", leave=False):
        (folder / f"class{start // PER_CLASS:05d}").mkdir(parents=True)
        base = random.integers(0, 256, (8, 8, 3))
        pictures = []
        for _ in range(4):
            drawn = np.clip(base + random.integers(-40, 40, base.shape), 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(drawn).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG")
            pictures.append(file.getvalue())
        for number in range(start, min(start + PER_CLASS, count)):
            path = folder / f"class{start // PER_CLASS:05d}" / f"{number:07d}.jpg"
            path.write_bytes(pictures[number % 4] + number.to_bytes(8, "little"))


def build_config(images: Path, side: int) -> Config:
    """A small network on those images, which are not kept in memory."""
    return Config.model_validate(
        {
            "data": {
                "path": str(images),
                "image_size": side,
                "memory_gb": 0,
                "split": {"train": 0.9, "validation": 0.05, "test": 0.05},
            },
            "model": {
                "backbone": "conv4",
                "widths": [8, 16, 16, 16],
                "strided_stem": True,
                "embedding_dim": 32,
            },
            "loss": "multi_similarity",
            "schedule": {"epochs": 1, "steps_per_epoch": 100},
        }
    )


def run_apart(function: Any, *arguments: object) -> dict[str, float]:
    """What a function sends from a process of its own, the last time it does; it may be killed."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(sending, *arguments))
    process.start()
    sending.close()
    sent: dict[str, float] = {}
    try:
        while True:
            sent = receiving.recv()
    except EOFError:
        process.join()
    return sent


def fill(sending: Connection, config: Config, killed_after: int | None) -> None:
    """Load the data; sends how many images were decoded, by processor time, and the peak memory."""
    decoded, decode, started = 0, ImageFile.decode, time.process_time()

    def count(file: ImageFile, *rest: Any) -> Any:
        nonlocal decoded
        decoded += 1
        if decoded == killed_after:
            sending.send({"decoded": decoded})
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(file, *rest)

    ImageFile.decode = count  # type: ignore[method-assign]
    load_data(config.data)
    sending.send({"decoded": decoded, "cpu_s": time.process_time() - started, "peak_gib": read_peak()})


def train_apart(sending: Connection, config: Config, out: Path) -> None:
    """Train; sends the peak memory, and what loading images that the cache holds takes of processor time."""
    started = time.process_time()
    load_data(config.data)
    load_s = time.process_time() - started
    train(config, out)
    sending.send({"load_s": load_s, "peak_gib": read_peak()})


def read_peak() -> float:
    """The most resident memory that this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_steps(sending: Connection, config: Config, rounds: int | None, folder: Path) -> None:
    """Sends the median ratio of tens of steps and images a second; for None rounds, of a whole epoch."""
    splits = load_data(config.data)
    rows = np.arange(min(IN_MEMORY, len(splits.train)))
    part = splits.train.subset(rows)
    copied = Items(part.inputs[rows], part.labels, part.ids)
    batch = config.sampler.batch_size
    steps = rounds or len(splits.train) // batch
    loops, feeds = [], []
    for items in (splits.train, copied):
        own = replace(splits, train=items, validation=None, test=None)
        state = build_state(config, own)
        state.progress.planned_steps = 10**6
        processes = Processes(torch.device("cpu"))
        loop = Loop(config, own, state, state.network, folder, "", processes, silent, print)
        plan = draw_batches(loop.inputs.codes, config.sampler, steps + AT_A_TIME, seed=1, epoch=1)
        feeds.append(BatchFeed(plan, 0, config, loop.inputs, loop.processes))
        loops.append(loop)
    times: list[list[float]] = [[], []]
    with keep_freed_memory():
        for ten in tqdm(range(steps // AT_A_TIME + 1), "comparing steps", leave=False):
            for which in (0, 1) if ten % 2 else (1, 0):
                started = time.perf_counter()
                for _ in range(AT_A_TIME):
                    loops[which].take_step(feeds[which])
                times[which].append(time.perf_counter() - started)
    cached, kept = (np.array(of[1:]) for of in times)  # the first ten warm up
    taken = len(cached) * AT_A_TIME
    sending.send(
        {
            "ratio": float(np.median(cached / kept)),
            "steps": taken,
            "cached": taken * batch / float(cached.sum()),
            "kept": taken * batch / float(kept.sum()),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
