"""Evaluation beside the bare product of all similarities, and beside pytorch-metric-learning.

    python -m benchmarks.evaluation [--quick] [--only NAME]

Every row is measured in its own process, as the median of 5 (of 1 with --quick), in one run with the
product that it is compared with: a blocked float32 product of all N x N similarities with torch, whose
results are thrown away. Memory is the peak beyond the process with the embeddings loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DIMENSION = 512
BLOCK = 2048
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """A size to measure, what is measured at it, and how often."""

    name: str
    items: int
    classes: int
    repeats: int
    parts: tuple[str, ...]


CASES = (
    Case("30k", 30_000, 1_500, 5, ("bare", "core", "all", "retrieval", "peer")),
    Case("10k", 10_000, 1_500, 5, ("bare", "core", "all")),
    Case("20k", 20_000, 1_500, 5, ("bare", "core", "all")),
    Case("40k", 40_000, 1_500, 5, ("bare", "core", "all")),
    Case("60k", 60_000, 11_300, 1, ("bare", "all")),
)


def make(items: int, classes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Classes of unequal spread in 48 of 512 directions, a little noise in all of them."""
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.arange(items) % classes)
    centres = draw.standard_normal((classes, 48), dtype=np.float32)
    spread = draw.uniform(0.5, 1.2, classes).astype(np.float32)
    directions = draw.standard_normal((48, DIMENSION), dtype=np.float32) / np.float32(48**0.5)
    vectors = np.empty((items, DIMENSION), dtype=np.float32)
    for first in range(0, items, BLOCK):
        own = labels[first : first + BLOCK]
        inner = centres[own] + spread[own, None] * draw.standard_normal((len(own), 48), dtype=np.float32)
        noise = draw.standard_normal((len(own), DIMENSION), dtype=np.float32)
        vectors[first : first + BLOCK] = inner @ directions + np.float32(0.1) * noise
    return vectors, labels


class Peak:
    """Peak resident memory above what was resident at the start."""

    def __enter__(self) -> Peak:
        self.start = self.most = _read_resident()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, _read_resident())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    @property
    def gib(self) -> float:
        return (self.most - self.start) / GIB


def _read_resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Seconds of every part, in turn and repeated, in this process."""
    import torch

    from embeddings.embedding_set import EmbeddingSet
    from evaluation.evaluate import evaluate_embeddings
    from evaluation.metrics.opis import OpisSettings, measure_consistency
    from evaluation.metrics.retrieval import measure_retrieval
    from evaluation.metrics.verification import measure_verification
    from evaluation.pairs.pairs import arrange
    from evaluation.pairs.ranks import compute_ranks
    from evaluation.pairs.sweep import sweep_pairs

    items = EmbeddingSet.from_arrays(*make(case.items, case.classes))
    tensor = torch.from_numpy(items.vectors)
    out = torch.empty(BLOCK, case.items)

    def multiply() -> None:
        for first in range(0, case.items, BLOCK):
            rows = tensor[first : first + BLOCK]
            torch.mm(rows, tensor.T, out=out[: len(rows)])

    def measure_core() -> None:
        sweep = sweep_pairs(arrange(items))
        measure_verification(sweep)
        measure_consistency(sweep, OpisSettings(), 0, debias=False)

    def evaluate_all() -> Any:
        return evaluate_embeddings(items, model_hash="benchmark", split="all")

    def rank() -> Any:
        return measure_retrieval(compute_ranks(arrange(items)))

    def rank_with_peer() -> dict[str, float]:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
        calculator = AccuracyCalculator(include=wanted, k="max_bin_count", device=torch.device("cpu"))
        return dict(calculator.get_accuracy(tensor, torch.from_numpy(items.codes)))

    parts: dict[str, Callable[[], Any]] = {
        "bare": multiply,
        "core": measure_core,
        "all": evaluate_all,
        "retrieval": rank,
        "peer": rank_with_peer,
    }
    small = items.subset(np.arange(min(3000, case.items)))
    evaluate_embeddings(small, model_hash="warm-up", split="all")  # compile, and start the threads
    seconds: dict[str, list[float]] = {name: [] for name in case.parts}
    peaks: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name in case.parts:
            with Peak() as peak:
                started = time.perf_counter()
                results[name] = parts[name]()
                seconds[name].append(time.perf_counter() - started)
            peaks[name] = max(peaks.get(name, 0.0), peak.gib)
    result: dict[str, Any] = {"seconds": {name: float(np.median(times)) for name, times in seconds.items()}}
    result["gib"] = peaks
    report = results["all"]
    result["figures"] = {
        "opis": report.consistency.opis,
        "opis_debiased": report.consistency.opis_debiased,
        "eer": report.verification.eer,
        "auc": report.verification.auc,
        "recall_at_1": report.retrieval.recall_at_1,
    }
    if "peer" in results:
        ours = (
            report.retrieval.recall_at_1,
            report.retrieval.r_precision,
            report.retrieval.map_at_r,
        )
        theirs = [
            results["peer"][name] for name in ("precision_at_1", "r_precision", "mean_average_precision_at_r")
        ]
        result["largest_difference_to_peer"] = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return result


def main() -> None:
    """Measure every case in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one repeat instead of five")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one size alone")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inner:
        case = next(case for case in CASES if case.name == chosen.inner)
        print(json.dumps(measure(case, 1 if chosen.quick else case.repeats)))
        return
    seconds: dict[int, float] = {}
    for case in CASES:
        if chosen.only not in (None, case.name):
            continue
        # -P: this folder holds a file named like the package that is measured
        command = [
            sys.executable,
            "-P",
            __file__,
            "--inner",
            case.name,
            *(["--quick"] if chosen.quick else []),
        ]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(answer.stdout.splitlines()[-1])
        bare = result["seconds"]["bare"]
        print(f"{case.items:,} x {DIMENSION}, {case.classes:,} classes; bare product {bare:.2f} s")
        for name in case.parts[1:]:
            took = result["seconds"][name]
            print(f"  {name:<9} {took:7.2f} s  {took / bare:5.2f} x  + {result['gib'][name]:.2f} GiB")
        if "largest_difference_to_peer" in result:
            print(f"  largest difference to the peer's figures {result['largest_difference_to_peer']:.1e}")
        print(f"  {json.dumps(result['figures'])}")
        if case.classes == 1_500:
            seconds[case.items] = result["seconds"]["all"]
    three = [n for n in (10_000, 20_000, 40_000) if n in seconds]
    if len(three) == 3:
        slope = np.polyfit(np.log(three), np.log([seconds[n] for n in three]), 1)[0]
        print(f"time grows as N^{slope:.2f} over 10k, 20k, 40k")


if __name__ == "__main__":
    main()
