"""SBCL against SupCon where training classes are of very different sizes: Omniglot's alphabets at 100:1.

    python -m benchmarks.long_tail [--seeds 3] [--steps 600] [--largest 300] [--only NAME ...]

The 30 background alphabets are the training classes, cut to sizes that fall geometrically from 300 drawings
to 3; each is made of some twenty characters, which no label names. Measured: recall@1 of other drawings of
these alphabets against the training drawings, averaged over classes (all, and the largest and smallest
third), and recall@1 and debiased log-FAR OPIS of characters of 20 alphabets that were not seen. A line a run,
then means and the difference from sup_con, seed by seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from common.array_types import Texts

LOSSES: dict[str, dict[str, Any]] = {
    "sup_con": {"name": "sup_con"},
    "sbcl": {"name": "sbcl", "every": 60},
    "sbcl, gamma 1": {"name": "sbcl", "every": 60, "gamma": 1.0},
}
HELD_OUT, UNSEEN_PER_ALPHABET = 40, 10  # drawings of each class, characters of each unseen alphabet


def write_list(folder: Path, seed: int, largest: int) -> Path:
    """A list of images ``path,label,split`` beside the unpacked drawings."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "omniglot"
    for name in ("images_background", "images_evaluation"):
        if not (folder / name).exists():
            with zipfile.ZipFile(source / f"{name}.zip") as archive:
                archive.extractall(folder)
    random = np.random.default_rng(seed)
    alphabets = sorted((folder / "images_background").iterdir())
    sizes = np.geomspace(largest, largest / 100, len(alphabets)).round().astype(int)
    path = folder / f"long_tail-{seed}.csv"
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label", "split"])
        for size, number in zip(sizes, random.permutation(len(alphabets)), strict=True):
            alphabet = alphabets[number]
            files = random.permutation(sorted(alphabet.rglob("*.png"), key=str))
            size = min(int(size), len(files) - HELD_OUT)
            for part, chosen in (("train", files[:size]), ("validation", files[size : size + HELD_OUT])):
                rows.writerows([file, alphabet.name, part] for file in chosen)
        for alphabet in sorted((folder / "images_evaluation").iterdir()):
            for character in sorted(alphabet.iterdir())[:UNSEEN_PER_ALPHABET]:
                label = f"{alphabet.name}/{character.name}"
                rows.writerows([file, label, "test"] for file in sorted(character.glob("*.png")))
    return path


def measure(name: str, seed: int, steps: int, data: Path) -> dict[str, Any]:
    """One run."""
    from api_schemas.config import Config
    from evaluation.evaluate import evaluate_embeddings
    from training.loop.train import train

    config = Config.model_validate(
        {
            "seed": seed,
            "data": {"path": str(data), "image_size": 28, "split": {"by": "column"}},
            "model": {"backbone": "conv4", "widths": [32, 32, 64, 64], "embedding_dim": 64},
            "loss": LOSSES[name],
            "sampler": {"batch_size": 128, "items_per_class": 8},
            "optimizer": {"lr": 2e-3},
            "schedule": {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
        }
    )
    with tempfile.TemporaryDirectory() as out:
        run = train(config, Path(out) / "run")
        parts = {part: run.load_embeddings(part) for part in ("train", "validation", "test")}
        log = (run.path / "metrics.jsonl").read_text().splitlines()
    known, held_out, unseen = parts["train"], parts["validation"], parts["test"]
    assert known is not None
    assert held_out is not None
    assert unseen is not None
    found = known.labels[(held_out.vectors @ known.vectors.T).argmax(1)] == held_out.labels
    classes, counts = np.unique(known.labels, return_counts=True)
    by_size = classes[np.argsort(-counts, kind="stable")]
    third = len(by_size) // 3
    report = evaluate_embeddings(unseen, model_hash="", split="test")
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        "imbalance": float(counts.max() / counts.min()),
        "cut_classes": json.loads(log[-1]).get("sbcl_cut_classes", 0.0),
        "all": _average(found, held_out.labels, by_size),
        "largest": _average(found, held_out.labels, by_size[:third]),
        "smallest": _average(found, held_out.labels, by_size[-third:]),
        "unseen_recall_at_1": report.retrieval.recall_at_1,
        "unseen_opis": report.consistency.opis_logfar_debiased,
    }


def _average(found: Any, labels: Texts, classes: Texts) -> float:
    """Mean over classes of the fraction found."""
    return statistics.fmean(float(found[labels == label].mean()) for label in classes)


def main() -> None:
    """Run every loss with every seed, then print what they differ by."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--largest", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=LOSSES, default=list(LOSSES))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            data = write_list(Path(folder), seed, arguments.largest)
            for name in arguments.only:
                rows.append(measure(name, seed, arguments.steps, data))
                print(json.dumps(rows[-1]), flush=True)
    figures = ("all", "largest", "smallest", "unseen_recall_at_1", "unseen_opis")
    print("| loss | seeds | cut | " + " | ".join(figures) + " |")
    print("| --- " * (3 + len(figures)) + "|")
    base = {row["seed"]: row for row in rows if row["name"] == "sup_con"}
    for name in arguments.only:
        mine = [row for row in rows if row["name"] == name]
        cells = []
        for key in figures:
            differences = [row[key] - base[row["seed"]][key] for row in mine if row["seed"] in base]
            spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
            change = f" ({statistics.fmean(differences):+.4f} +- {spread:.4f})" if differences else ""
            cells.append(f"{statistics.fmean(row[key] for row in mine):.4f}{change}")
        cut = statistics.fmean(row["cut_classes"] for row in mine)
        print(f"| {name} | {len(mine)} | {cut:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
