"""The small form's guard: what an answer costs over FAISS's may not rise by more than twice its spread.

It compares processor time of one client's answers with that of FAISS alone on one thread: rates fall with
load, and what engines of several threads take depends on how often these wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.registry import ENGINES
from benchmarks.peers.report.figures import Spread, collect
from benchmarks.peers.results import Record

REFERENCE = Path(__file__).parents[1] / "reference.json"
YARDSTICK, PLAIN = "faiss", "1 client, single"
LEFT_OUT = {("match", "limen")}  # few answers, beside which the monitor's look at the latest queries counts
Ratios = dict[str, list[float]]  # by job, size, case and engine: a ratio a round


def compute_ratios(records: Sequence[Record]) -> Ratios:
    """How many times the processor time of FAISS's search Limen's answers take; the first round warms up."""
    ratios: Ratios = {}
    for record in records:
        job, size, engine, number = (record[key] for key in ("job", "size", "engine", "round"))
        if not ENGINES[engine].is_ours or number == 0 or (job, engine) in LEFT_OUT:
            continue
        for case, figures in record["figures"].items():
            limit = collect(records, "search", size, YARDSTICK, case if job == "search" else PLAIN, "cpu")
            if case.startswith("1 client") and "cpu" in figures and number in limit:
                name = f"{job}, {size}, {case}, {engine}"
                ratios.setdefault(name, []).append(figures["cpu"] / limit[number])
    return ratios


def write_reference(ratios: Ratios, file: Path = REFERENCE) -> None:
    """Add these rounds to the usual ones: what varies from run to run is part of the spread."""
    reference: Ratios = json.loads(file.read_text()) if file.exists() else {}
    for name, rounds in ratios.items():
        reference.setdefault(name, []).extend(round(ratio, 3) for ratio in rounds)
    lines = [f" {json.dumps(name)}: {json.dumps(rounds)}" for name, rounds in sorted(reference.items())]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def find_losses(ratios: Ratios, file: Path = REFERENCE) -> list[str]:
    """A sentence for each ratio that rose by more than twice the wider of both spreads."""
    reference: Ratios = json.loads(file.read_text()) if file.exists() else {}
    losses = []
    for name, rounds in ratios.items():
        if name not in reference:
            continue
        now, usual = Spread.of(rounds), Spread.of(reference[name])
        allowed = usual.median + 2 * max(usual.width, now.width)
        if now.median > allowed:
            losses.append(
                f"{name}: {now.median:.2f} x FAISS, above {allowed:.2f} x ({usual.median:.2f} x usually)."
            )
    return losses
