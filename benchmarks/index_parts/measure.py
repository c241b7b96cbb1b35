"""Queries a second, recall and memory, measured alike for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import numpy as np

from common.array_types import Int64s, UnitVectors

EFFORTS = (16, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1_024)
K = 10
RECALL = 0.95
Ask = Callable[[UnitVectors], Int64s]


def measure_rate(ask: Ask, queries: UnitVectors, batch: int, seconds: float = 0.7) -> float:
    """Queries per second in batches."""
    asked, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds:
        first = asked % (len(queries) - batch + 1)
        ask(queries[first : first + batch])
        asked += batch
    return asked / spent


def measure_rates(asks: dict[str, Ask], queries: UnitVectors, rounds: int = 6) -> dict[str, dict[str, float]]:
    """Queries per second of several searches that take turns, in batches of 64 and one by one."""
    out: dict[str, dict[str, float]] = {name: {} for name in asks}
    for batch in (64, 1):
        for _ in range(rounds):
            for name, ask in asks.items():
                now = measure_rate(ask, queries, batch)
                out[name][f"q/s in {batch}"] = round(max(now, out[name].get(f"q/s in {batch}", 0.0)))
    return out


def compute_recall(ask: Ask, queries: UnitVectors, neighbours: Int64s) -> float:
    """Fraction of the true ten that are found."""
    found = ask(queries)
    pairs = zip(found.tolist(), neighbours.tolist(), strict=True)
    return round(float(np.mean([len(set(a) & set(b)) / K for a, b in pairs])), 4)


def tune(
    make: Callable[[int], Ask], queries: UnitVectors, neighbours: Int64s, efforts: Iterable[int] = EFFORTS
) -> tuple[int, Ask]:
    """The smallest effort that reaches the recall on the first 300 queries, or the largest tried."""
    for effort in efforts:
        ask = make(effort)
        if compute_recall(ask, queries[:300], neighbours[:300]) >= RECALL:
            break
    return effort, ask


def read_resident_memory() -> dict[str, int]:
    """Anonymous and file-backed resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(values[f"Rss{name}"].split()[0]) // 1024 for name in ("Anon", "File")}
