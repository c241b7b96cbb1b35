"""Matches of a batch decided together against one by one: CLINC150's sentence vectors, few items a class.

    python -m benchmarks.joint_match [--seeds 3] [--batches 20]

Of 75 intents drawn by the seed the gallery holds 1 or 5 sentences each, all others are queries; of the 75
others, strangers. A batch has 100 queries: of 10 intents (`few`), of all 75 (`all`), or half of it of 10
intents and half of strangers (`half unknown`). By batch the label of the best class of each, alone (the
nearest item) and together; means over batches and the difference seed by seed with its 95 % interval by
Student's t. Strangers count where the threshold of FPIR 5 %, alone, lets them through.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import numpy as np

from benchmarks.consistent_losses import compute_interval
from common.array_types import Float64s
from index.search.joint_match import CANDIDATES, label_jointly

BATCH, FEW = 100, 10
KINDS = ("few", "all", "half unknown")


def measure(seed: int, each: int, kind: str, batches: int) -> dict[str, float]:
    """Fractions of the known queries named rightly, and of strangers let through: alone and together."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "clinc150" / "clinc150_minilm.npz"
    with np.load(source) as archive:
        vectors, labels = archive["embeddings"].astype(np.float64), archive["labels"]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    intents = random.permutation(np.unique(labels[labels != "oos"]))
    known, strange = intents[:75], np.flatnonzero(np.isin(labels, intents[75:]))
    rows = {name: random.permutation(np.flatnonzero(labels == name)) for name in known.tolist()}
    items = np.concatenate([vectors[rows[name][:each]] for name in known.tolist()])
    sums = items.reshape(len(known), each, -1).sum(axis=1)
    best = _score_classes(vectors[strange], items, each).max(axis=1)
    threshold = float(np.quantile(best, 0.95))
    figures: dict[str, list[float]] = {}
    for _ in range(batches):
        chosen = random.permutation(len(known))[: len(known) if kind == "all" else FEW]
        n_known = BATCH // 2 if kind == "half unknown" else BATCH
        truth = random.choice(chosen, n_known)
        queries = [vectors[random.choice(rows[known[code]][each:])] for code in truth.tolist()]
        queries += list(vectors[random.choice(strange, BATCH - n_known, replace=False)])
        batch = np.stack(queries)
        scores = _score_classes(batch, items, each)
        allowed = scores >= np.sort(scores, axis=1)[:, -CANDIDATES, None]
        together = label_jointly(batch.astype(np.float32), sums, np.full(len(known), each), allowed)
        for name, answer in (("alone", scores.argmax(axis=1)), ("together", together.argmax(axis=1))):
            accepted = scores[np.arange(BATCH), answer] >= threshold
            right = answer[:n_known] == truth
            figures.setdefault(f"{name}, named rightly", []).append(float(right.mean()))
            figures.setdefault(f"{name}, matched rightly", []).append(
                float((right & accepted[:n_known]).mean())
            )
            if n_known < BATCH:
                figures.setdefault(f"{name}, strangers matched", []).append(float(accepted[n_known:].mean()))
    return {name: statistics.fmean(values) for name, values in figures.items()}


def _score_classes(queries: Float64s, items: Float64s, each: int) -> Float64s:
    """The similarity of each query with the nearest item of each class, float64 [n, c]."""
    return np.asarray((queries @ items.T).reshape(len(queries), -1, each).max(axis=2))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    print("| items of a class | batch | figure | alone | together |")
    print("| --- | --- | --- | --- | --- |")
    for each in (1, 5):
        for kind in KINDS:
            runs = [measure(seed, each, kind, arguments.batches) for seed in range(arguments.seeds)]
            for figure in [name.removeprefix("alone, ") for name in runs[0] if name.startswith("alone")]:
                alone, together = (
                    [run[f"{name}, {figure}"] for run in runs] for name in ("alone", "together")
                )
                mean, half = compute_interval([b - a for a, b in zip(alone, together, strict=True)])
                print(
                    f"| {each} | {kind} | {figure} | {statistics.fmean(alone):.3f} "
                    f"| {statistics.fmean(together):.3f} ({mean:+.3f} +- {half:.3f}) |"
                )


if __name__ == "__main__":
    main()
