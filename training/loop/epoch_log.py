"""What an epoch showed: a line for people and a line of ``metrics.jsonl``."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict
from pathlib import Path

from tensorboardX import SummaryWriter

from common.atomic_files import write_atomically
from common.errors import InputError
from training.loop.train_state import Progress, State
from training.loop.validation_metrics import Figures

METRICS, EVENTS = "metrics.jsonl", "tensorboard"


class Metrics:
    """``metrics.jsonl`` and TensorBoard's event files of one run folder, an entry an epoch.

    Lines of epochs that a resumed run repeats are replaced; TensorBoard hides their points.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        self.path = folder / METRICS
        # no queue to speak of: every epoch is on disk when the next one begins
        self.events = SummaryWriter(str(folder / EVENTS), purge_step=epochs_done + 1, max_queue=1)

    def append(self, state: State, figures: Figures | None, images_per_second: float) -> None:
        """Add the epoch that just ended."""
        progress = state.progress
        entry = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.losses[-1],
            "lr": float(state.optimizer.param_groups[0]["lr"]),
            "images_per_second": round(images_per_second, 1),
            "seconds": round(progress.seconds, 2),
            **({} if figures is None else asdict(figures)),
        }
        kept = [line for epoch, line in _lines(self.path) if epoch < progress.epoch]
        write_atomically(self.path, b"\n".join([*kept, json.dumps(entry).encode()]) + b"\n")
        for name, value in entry.items():
            if name != "epoch" and value is not None:
                self.events.add_scalar(name, value, progress.epoch)
        self.events.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.events.close()


def refuse_damaged_metrics(folder: Path) -> None:
    """Raises InputError when the lines of a run cannot be gone on with; a last one that was cut off can."""
    _lines(folder / METRICS)


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Epoch and line of each entry, none where there is no file; a power cut may have torn the last."""
    written = path.read_bytes().splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(written, start=1):
        try:
            found.append((operator.index(json.loads(line)["epoch"]), line))
        except (ValueError, LookupError, TypeError):
            if number < len(written):
                raise InputError(
                    f"{path}: line {number} is damaged: remove it and go on with --resume."
                ) from None
    return found


def describe(progress: Progress, figures: Figures | None, items_per_second: float, better: bool) -> str:
    """The epoch in one line, OPIS beside recall@1; ``*`` marks the best so far."""
    parts = [f"epoch {progress.epoch:3d}", f"loss {progress.losses[-1]:.4f}"]
    if figures is not None:
        named = {
            "recall@1": (figures.recall_at_1, ".4f"),
            "OPIS": (figures.opis, ".2e"),
            "MAP@R": (figures.map_at_r, ".4f"),
            "EER": (figures.eer, ".4f"),
        }
        parts += [f"{name} {value:{digits}}" for name, (value, digits) in named.items() if value is not None]
    left = f", {progress.seconds_left:.0f} s left" if progress.step < progress.planned_steps else ""
    parts += [f"{items_per_second:.0f} items/s", f"{progress.seconds:.0f} s{left}"]
    return "  ".join(parts) + (" *" if better else "")
