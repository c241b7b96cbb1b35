"""The small form's guard: a ratio may not fall below what it was by more than twice its spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.jobs import JOBS
from benchmarks.peers.registry import ENGINES
from benchmarks.peers.report.figures import Spread, collect, compare
from benchmarks.peers.results import Record

REFERENCE = Path(__file__).parents[1] / "reference.json"
Ratios = dict[str, Spread]


def compute_ratios(records: Sequence[Record]) -> Ratios:
    """How many times better Limen is than each peer, by job, case and peer."""
    ratios: Ratios = {}
    for job, size, engine in dict.fromkeys((each["job"], each["size"], each["engine"]) for each in records):
        if ENGINES[engine].is_ours:
            continue
        about = JOBS[job]
        for case in next(
            each["figures"] for each in records if (each["job"], each["engine"]) == (job, engine)
        ):
            ours, theirs = (
                collect(records, job, size, name, case, about.figure) for name in ("limen", engine)
            )
            ratio = compare(theirs, ours) if about.lower else compare(ours, theirs)
            if ratio is not None:
                ratios[f"{job}, {size}, {case}, {engine}"] = ratio
    return ratios


def write_reference(ratios: Ratios, file: Path = REFERENCE) -> None:
    """Keep the ratios and half of their ranges."""
    kept = {name: [round(ratio.median, 3), round(ratio.width, 3)] for name, ratio in sorted(ratios.items())}
    file.write_text(json.dumps(kept, indent=1) + "\n")


def find_losses(ratios: Ratios, file: Path = REFERENCE) -> list[str]:
    """A sentence for each ratio that fell by more than twice the wider of both spreads."""
    reference = json.loads(file.read_text()) if file.exists() else {}
    losses = []
    for name, ratio in ratios.items():
        if name not in reference:
            continue
        usual, width = reference[name]
        allowed = usual - 2 * max(width, ratio.width)
        if ratio.median < allowed:
            losses.append(f"{name}: {ratio.median:.2f} x, below {allowed:.2f} x ({usual:.2f} x usually).")
    return losses
