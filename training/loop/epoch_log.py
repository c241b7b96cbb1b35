"""The log of a run's epochs: a line for people and a line of ``metrics.jsonl`` each."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict
from pathlib import Path

from tensorboardX import SummaryWriter

from common.atomic_files import write_atomically
from common.errors import InputError
from training.loop.train_state import Progress, TrainState
from training.loop.validation_metrics import ValidationMetrics
from training.run_folder.layout import METRICS_FILE, TENSORBOARD_FOLDER


class EpochLog:
    """``metrics.jsonl`` and TensorBoard's event files of one run folder, an entry an epoch.

    Nothing is written before the first entry. Lines of epochs that a resumed run repeats are replaced;
    TensorBoard hides their points.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events: SummaryWriter | None = None

    def __enter__(self) -> EpochLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()

    def append(self, state: TrainState, metrics: ValidationMetrics | None, images_per_second: float) -> None:
        """Add the epoch that just ended."""
        progress = state.progress
        entry = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.losses[-1],
            "lr": float(state.optimizer.param_groups[0]["lr"]),
            "images_per_second": round(images_per_second, 1),
            "seconds": round(progress.seconds, 2),
            **({} if metrics is None else asdict(metrics)),
            **state.objective.collect_figures(),
        }
        path = self.folder / METRICS_FILE
        kept = [line for epoch, line in _read_lines(path) if epoch < progress.epoch]
        write_atomically(path, b"\n".join([*kept, json.dumps(entry).encode()]) + b"\n")
        if self._events is None:  # with no queue to speak of: every epoch is on disk when the next one begins
            events = str(self.folder / TENSORBOARD_FOLDER)
            self._events = SummaryWriter(events, purge_step=progress.epoch, max_queue=1)
        for name, value in entry.items():
            if name != "epoch" and value is not None:
                self._events.add_scalar(name, value, progress.epoch)
        self._events.flush()


def check_epoch_log(folder: Path) -> None:
    """Raises InputError when a line of a run's metrics is damaged; a last one that was cut off is not."""
    _read_lines(folder / METRICS_FILE)


def _read_lines(path: Path) -> list[tuple[int, bytes]]:
    """Epoch and line of each entry, none where there is no file; a power cut may have torn the last."""
    written = path.read_bytes().splitlines() if path.exists() else []
    entries = []
    for number, line in enumerate(written, start=1):
        try:
            entries.append((operator.index(json.loads(line)["epoch"]), line))
        except (ValueError, LookupError, TypeError):
            if number < len(written):
                raise InputError(
                    f"{path}: line {number} is damaged: remove it and go on with --resume."
                ) from None
    return entries


def format_epoch(progress: Progress, metrics: ValidationMetrics | None, speed: float, is_best: bool) -> str:
    """The epoch in one line, OPIS beside recall@1; ``*`` marks the best so far."""
    parts = [f"epoch {progress.epoch:3d}", f"loss {progress.losses[-1]:.4f}"]
    if metrics is not None:
        named = {
            "recall@1": (metrics.recall_at_1, ".4f"),
            "OPIS": (metrics.opis, ".2e"),
            "MAP@R": (metrics.map_at_r, ".4f"),
            "EER": (metrics.eer, ".4f"),
        }
        parts += [f"{name} {value:{digits}}" for name, (value, digits) in named.items() if value is not None]
    left = f", {progress.seconds_left:.0f} s left" if progress.step < progress.planned_steps else ""
    parts += [f"{speed:.0f} items/s", f"{progress.seconds:.0f} s{left}"]
    return "  ".join(parts) + (" *" if is_best else "")
