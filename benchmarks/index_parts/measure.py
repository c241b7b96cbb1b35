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
Search = Callable[[UnitVectors], Int64s]


def measure_rate(search: Search, queries: UnitVectors, batch: int, seconds: float = 0.7) -> float:
    """Queries per second in batches."""
    done, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds:
        first = done % (len(queries) - batch + 1)
        search(queries[first : first + batch])
        done += batch
    return done / spent


def measure_rates(
    searches: dict[str, Search], queries: UnitVectors, rounds: int = 6
) -> dict[str, dict[str, float]]:
    """Queries per second of several searches that take turns, in batches of 64 and one by one."""
    out: dict[str, dict[str, float]] = {name: {} for name in searches}
    for batch in (64, 1):
        for _ in range(rounds):
            for name, search in searches.items():
                now = measure_rate(search, queries, batch)
                out[name][f"q/s in {batch}"] = round(max(now, out[name].get(f"q/s in {batch}", 0.0)))
    return out


def compute_recall(search: Search, queries: UnitVectors, neighbours: Int64s) -> float:
    """Fraction of the true ten that are found."""
    nodes = search(queries)
    pairs = zip(nodes.tolist(), neighbours.tolist(), strict=True)
    return round(float(np.mean([len(set(a) & set(b)) / K for a, b in pairs])), 4)


def tune(
    make: Callable[[int], Search], queries: UnitVectors, neighbours: Int64s, efforts: Iterable[int] = EFFORTS
) -> tuple[int, Search]:
    """The smallest effort that reaches the recall on the first 300 queries, or the largest tried."""
    for effort in efforts:
        search = make(effort)
        if compute_recall(search, queries[:300], neighbours[:300]) >= RECALL:
            break
    return effort, search


def read_resident_memory() -> dict[str, int]:
    """Anonymous and file-backed resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(values[f"Rss{name}"].split()[0]) // 1024 for name in ("Anon", "File")}
