"""Trained networks beside the frozen one they began from, on classes that none has seen.

    python -m benchmarks.fine_tuning FROZEN=FILE NAME=FILE ... [--references 5] [--draws 10]

Files of embeddings of the same items. Prints recall@1 of every item among all others, and of probes among so
many random references of each class, with FNIR at a hindsight threshold of FPIR 5 %, each probe in turn known
and unknown; then the difference to the first file, with the 95 % interval over resampled classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.identification import FPIRS, Measured, measure, split_references
from common.array_types import Float64s
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from evaluation.metrics.class_bootstrap import draw_classes

REPLICATES = 1000
FPIR = 1 + FPIRS.index(0.05)  # of the rates


def measure_all(items: EmbeddingSet) -> Float64s:
    """Recall@1 of each class, every item asked about among all others: float [classes]."""
    similarities = items.vectors @ items.vectors.T
    np.fill_diagonal(similarities, -np.inf)
    is_right = items.codes[similarities.argmax(axis=1)] == items.codes
    return np.bincount(items.codes, is_right) / np.bincount(items.codes)


def measure_draws(items: EmbeddingSet, references: int, draws: int) -> list[Measured]:
    """Scores of probes among references, drawn again each time."""
    return [measure(*split_references(items, references, seed), None, None) for seed in range(draws)]


def compute_figures(
    items: EmbeddingSet, recalls: Float64s, measured: list[Measured], weights: Float64s
) -> Float64s:
    """Recall@1 among all, among references, and FNIR at FPIR 5 %, classes weighed: float [3]."""
    sizes = np.bincount(items.codes) * weights
    rates = np.mean([draw.compute_rates(weights) for draw in measured], axis=0)
    return np.array([recalls @ sizes / sizes.sum(), rates[0], rates[FPIR]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="NAME=FILE")
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    given = parser.parse_args()
    if not given.files:
        print("Nothing to compare: name embeddings of trained networks (docs/results.md, photos).")
        return
    head = ["network", "recall@1", f"recall@1, {given.references} references", "FNIR at FPIR 5 %"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    baseline: list[Float64s] = []
    for entry in given.files:
        name, _, path = entry.partition("=")
        items = read_embeddings(Path(path))
        recalls, measured = measure_all(items), measure_draws(items, given.references, given.draws)
        n = len(items.classes)
        drawn = [draw_classes(n, 1000 * seed, 1)[0] for seed in range(given.replicates)]
        figures = [compute_figures(items, recalls, measured, weights) for weights in [np.ones(n), *drawn]]
        baseline = baseline or figures
        cells = []
        for column, value in enumerate(figures[0]):
            differences = [own[column] - other[column] for own, other in zip(figures, baseline, strict=True)]
            low, high = np.quantile(differences[1:], [0.025, 0.975])
            shown = f" ({differences[0]:+.3f}, {low:+.3f} to {high:+.3f})" if figures is not baseline else ""
            cells.append(f"{value:.3f}{shown}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
