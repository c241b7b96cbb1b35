"""Training that goes on from a run, with new classes, beside training anew on all of them.

    python -m benchmarks.continued_training [--seeds 3] [--steps 400] [--classes 300]

Omniglot characters of the background: four fifths of them train the first run; then all are there, and a run
that starts from the first takes a quarter of the steps that one from scratch takes. Test: characters of the
evaluation alphabets, which none has seen. Figures are means over seeds, with their standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from api_schemas.config import Config
from evaluation.evaluate import evaluate_embeddings
from training.loop.train import train
from training.run_folder.run_folder import Run

ROOT = Path(__file__).resolve().parents[1]
SIDE = 28
NEW = 0.2  # fraction of the training classes that the first run has not seen
MEASURED = 150  # classes of the test; half as many validate


def write_images(out: Path, classes: int) -> None:
    """Small images of so many training characters, and the lists ``first.csv`` and ``all.csv``."""
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "omniglot" / "omniglot.npz") as archive:
        packed, labels, is_test = archive["images_packed"], archive["label"], archive["is_evaluation"]
    order = np.random.default_rng(0).permutation(np.unique(labels[~is_test]))
    unseen = np.random.default_rng(0).permutation(np.unique(labels[is_test]))[:MEASURED]
    part_of = dict.fromkeys(order[:classes].tolist(), "train")
    part_of |= dict.fromkeys(order[classes : classes + MEASURED // 2].tolist(), "validation")
    part_of |= dict.fromkeys(unseen.tolist(), "test")
    new = set(order[:classes][round(classes * (1 - NEW)) :].tolist())
    rows: dict[str, list[list[str]]] = {"first": [], "all": []}
    for number in np.flatnonzero(np.isin(labels, list(part_of))).tolist():
        ink = np.unpackbits(packed[number], axis=1, count=105)
        image = Image.fromarray(255 - 255 * ink).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        image.save(out / f"{number}.png")
        label = int(labels[number])
        row = [f"{number}.png", str(label), part_of[label]]
        rows["all"].append(row)
        if label not in new:
            rows["first"].append(row)
    for name, of_list in rows.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["path", "label", "split"], *of_list])


def train_run(data: Path, out: Path, steps: int, seed: int, start: Path | None = None) -> Run:
    """A run of so many steps in four epochs."""
    config = {
        "seed": seed,
        "start_from": None if start is None else str(start),
        "data": {"path": str(data), "image_size": SIDE, "split": {"by": "column"}},
        "model": {"backbone": "conv4", "widths": [32, 64, 64, 128], "embedding_dim": 64},
        "loss": [{"name": "multi_similarity"}],
        "optimizer": {"lr": 2e-3},
        "schedule": {
            "epochs": 4,
            "steps_per_epoch": steps // 4,
            "shape": "one_cycle",
            "patience": None,
            "minutes": None,
        },
        "evaluation": {"every": 4},
    }
    print(f"<!-- {out.name}, {steps} steps -->", file=sys.stderr, flush=True)
    return train(Config.model_validate(config), out)


def measure(run: Run) -> list[float]:
    """Recall@1, MAP@R and EER on the test characters."""
    items = run.load_embeddings("test")
    assert items is not None
    report = evaluate_embeddings(items, model_hash="", split="test")
    figures = (report.retrieval.recall_at_1, report.retrieval.map_at_r, report.verification.eer)
    return [float(figure or 0.0) for figure in figures]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--classes", type=int, default=300)
    given = parser.parse_args()
    quarter = given.steps // 4
    rows: dict[str, list[list[float]]] = {}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder, given.classes)
        for seed in range(given.seeds):
            first = train_run(folder / "first.csv", folder / f"first{seed}", given.steps, seed)
            for name, steps, start in (
                ("anew", given.steps, None),
                ("anew", quarter, None),
                ("from the first run", quarter, first.path),
            ):
                out = folder / f"{name[:4]}-{steps}-{seed}"
                run = train_run(folder / "all.csv", out, steps, seed, start)
                rows.setdefault(f"{name} | {steps}", []).append(measure(run))
            rows.setdefault(f"the first run | {given.steps}", []).append(measure(first))
    head = ["training", "steps", "recall@1", "MAP@R", "EER"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, values in rows.items():
        means, spreads = np.mean(values, axis=0), np.std(values, axis=0, ddof=min(1, len(values) - 1))
        cells = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means, spreads, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
