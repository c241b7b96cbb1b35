"""What an epoch showed: a line for people and a line of ``metrics.jsonl``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from api_schemas.files import write_atomically
from training.state import State
from training.validate import Figures

METRICS = "metrics.jsonl"


def append_metrics(folder: Path, state: State, figures: Figures | None, images_per_second: float) -> None:
    """Add an epoch; lines of epochs that a resumed run repeats are replaced."""
    path = folder / METRICS
    progress = state.progress
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < progress.epoch]
    entry = {
        "epoch": progress.epoch,
        "step": progress.step,
        "loss": progress.losses[-1],
        "lr": float(state.optimizer.param_groups[0]["lr"]),
        "images_per_second": round(images_per_second, 1),
        "seconds": round(progress.seconds, 2),
        **({} if figures is None else asdict(figures)),
    }
    write_atomically(path, ("\n".join([*kept, json.dumps(entry)]) + "\n").encode())


def describe(state: State, figures: Figures | None, images_per_second: float, better: bool) -> str:
    """The epoch in one line; ``*`` marks the best so far."""
    progress = state.progress
    parts = [f"epoch {progress.epoch:3d}", f"loss {progress.losses[-1]:.4f}"]
    if figures is not None:
        named = (("recall@1", figures.recall_at_1), ("MAP@R", figures.map_at_r), ("EER", figures.eer))
        parts += [f"{name} {value:.4f}" for name, value in named if value is not None]
        if figures.opis is not None:
            parts.insert(3, f"OPIS {figures.opis:.2e}")
    parts += [f"{images_per_second:.0f} items/s", f"{progress.seconds:.0f} s"]
    return "  ".join(parts) + (" *" if better else "")
