"""The small form's guard: what a peer's answer costs over what Limen's does may not fall by twice its spread.

It compares processor time, which what else the machine does hardly changes; rates would fail by load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.registry import ENGINES
from benchmarks.peers.report.figures import Spread, collect
from benchmarks.peers.results import Record

REFERENCE = Path(__file__).parents[1] / "reference.json"
Ratios = dict[str, list[float]]  # by job, size, case and peer: a ratio a round


def compute_ratios(records: Sequence[Record]) -> Ratios:
    """How many times the processor time of Limen's answer each peer's takes."""
    ratios: Ratios = {}
    for job, size, engine in dict.fromkeys((each["job"], each["size"], each["engine"]) for each in records):
        if ENGINES[engine].is_ours:
            continue
        for case in next(
            each["figures"] for each in records if (each["job"], each["engine"]) == (job, engine)
        ):
            ours, theirs = (collect(records, job, size, name, case, "cpu") for name in ("limen", engine))
            rounds = [theirs[number] / cost for number, cost in ours.items() if number in theirs]
            if rounds:
                ratios[f"{job}, {size}, {case}, {engine}"] = rounds
    return ratios


def write_reference(ratios: Ratios, file: Path = REFERENCE) -> None:
    """Add these rounds to the usual ones: what varies from run to run is part of the spread."""
    reference: Ratios = json.loads(file.read_text()) if file.exists() else {}
    for name, rounds in ratios.items():
        reference.setdefault(name, []).extend(round(ratio, 3) for ratio in rounds)
    lines = [f" {json.dumps(name)}: {json.dumps(rounds)}" for name, rounds in sorted(reference.items())]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def find_losses(ratios: Ratios, file: Path = REFERENCE) -> list[str]:
    """A sentence for each ratio that fell by more than twice the wider of both spreads."""
    reference: Ratios = json.loads(file.read_text()) if file.exists() else {}
    losses = []
    for name, rounds in ratios.items():
        if name not in reference:
            continue
        now, usual = Spread.of(rounds), Spread.of(reference[name])
        allowed = usual.median - 2 * max(usual.width, now.width)
        if now.median < allowed:
            losses.append(
                f"{name}: {now.median:.2f} x, below {allowed:.2f} x ({usual.median:.2f} x usually)."
            )
    return losses
