"""Losses against OPIS: does a regulariser make one threshold hold more evenly, at the same recall?

    python -m benchmarks.consistent_losses [--data clinc150 omniglot] [--seeds 3] [--steps 400] \
        [--only ROW ...] --out build/consistent_losses.jsonl

Each base loss alone, with threshold_consistent_margin and with opis_variance, at one budget (`--only` takes
every other loss as well): Omniglot (300 training characters, 600 unseen, conv4) and CLINC150 (sentence
vectors, 60 training intents, 75 unseen, a linear head); network, batches and split follow from the seed. A
line a run, on the unseen classes (`--part validation` on classes that are in neither, to choose a setting
by); runs already in the file are not repeated. The table gives the mean difference from the base loss, seed
by seed, with its 95 % interval by Student's t.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

BASES = ("multi_similarity", "triplet", "nt_xent", "normalized_softmax")
ADDED: dict[str, dict[str, Any]] = {
    "tcm": {"name": "threshold_consistent_margin"},
    "tcm, frr 0.5": {"name": "threshold_consistent_margin", "frr": 0.5},
    "tcm 0.9 / 0.5": {"name": "threshold_consistent_margin", "margin_plus": 0.9, "margin_minus": 0.5},
    "opis_variance, weight 1": {"name": "opis_variance", "weight": 1.0},
    "opis_variance, weight 10": {"name": "opis_variance", "weight": 10.0},
    "opis_variance, weight 30": {"name": "opis_variance", "weight": 30.0},
}
FIGURES = {"opis": "debiased log-FAR OPIS", "recall_at_1": "recall@1", "map_at_r": "MAP@R", "eer": "EER"}


def list_rows() -> dict[str, list[dict[str, Any]]]:
    """Name of a row to its losses: each loss alone, then each base with each of what is added."""
    from training.losses import LOSSES

    alone: dict[str, list[dict[str, Any]]] = {name: [{"name": name}] for name in LOSSES}
    together = {f"{base} + {name}": [{"name": base}, part] for base in BASES for name, part in ADDED.items()}
    return alone | together


def write_vectors(folder: Path) -> Path:
    """CLINC150's sentence vectors without the queries of no intent."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "clinc150" / "clinc150_minilm.npz"
    with np.load(source) as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    known = labels != "oos"
    np.savez(folder / "intents.npz", embeddings=vectors[known], labels=labels[known])
    return folder / "intents.npz"


def build_settings(data: str, row: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The configuration of a run."""
    datasets = os.environ.get("LIMEN_DATASETS", "../shared/data")
    schedule = {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"}
    common = {
        "seed": seed,
        "loss": list_rows()[row],
        "schedule": schedule,
        "sampler": {"batch_size": 128, "items_per_class": 4},
    }
    if data == "clinc150":
        return common | {
            "data": {
                "kind": "embeddings",
                "path": str(folder / "intents.npz"),
                "split": {"by": "class", "train": 60, "validation": 15, "test": 75, "seed": seed},
            },
            "model": {"backbone": "linear", "embedding_dim": 128},
            "optimizer": {"lr": 1e-3},
        }
    return common | {
        "data": {
            "path": f"{datasets}/omniglot/images_background.zip",
            "image_size": 28,
            "split": {"by": "class", "train": 300, "validation": 64, "test": 600, "seed": seed},
        },
        "model": {"backbone": "conv4", "widths": [32, 32, 64, 64], "embedding_dim": 64},
        "optimizer": {"lr": 2e-3},
    }


def measure(data: str, row: str, seed: int, steps: int, part: str, folder: Path) -> dict[str, Any]:
    """One run."""
    from api_schemas.config import Config
    from evaluation.evaluate import evaluate_embeddings
    from training.loop.train import train

    with tempfile.TemporaryDirectory() as out:
        run = train(Config.model_validate(build_settings(data, row, seed, steps, folder)), Path(out) / "run")
        items = run.load_embeddings("validation" if part == "validation" else "test")
    assert items is not None
    report = evaluate_embeddings(items, model_hash="", split=part)
    return {
        "data": data,
        "row": row,
        "seed": seed,
        "part": part,
        "steps": steps,
        "opis": report.consistency.opis_logfar_debiased,
        "recall_at_1": report.retrieval.recall_at_1,
        "map_at_r": report.retrieval.map_at_r,
        "eer": report.verification.eer,
        "far_range": list(report.consistency.calibration_range.score or [])
        if report.consistency.calibration_range
        else [],
    }


def compute_interval(differences: list[float]) -> tuple[float, float]:
    """Mean of paired differences and half the width of its 95 % interval by Student's t."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, float("nan")
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return mean, float(student.ppf(0.975, len(differences) - 1)) * error


def format_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means of the bases, and by how much each addition changes them."""
    lines = ["| data | loss | seeds | " + " | ".join(FIGURES.values()) + " |"]
    lines.append("| --- " * (3 + len(FIGURES)) + "|")
    for data in dict.fromkeys(row["data"] for row in rows):
        for name in dict.fromkeys(row["row"] for row in rows if row["data"] == data):
            mine = {row["seed"]: row for row in rows if (row["data"], row["row"]) == (data, name)}
            base_name = name.split(" + ")[0]
            base = {row["seed"]: row for row in rows if (row["data"], row["row"]) == (data, base_name)}
            cells = []
            for key in FIGURES:
                digits = 5 if key == "opis" else 4
                cell = f"{statistics.fmean(row[key] for row in mine.values()):.{digits}f}"
                both = [seed for seed in mine if seed in base]
                if name != base_name and both:
                    mean, half = compute_interval([mine[seed][key] - base[seed][key] for seed in both])
                    cell += f" ({mean:+.{digits}f} +- {half:.{digits}f})"
                cells.append(cell)
            lines.append(f"| {data} | {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows_known = list_rows()
    usual = [name for name in rows_known if name.split(" + ")[0] in BASES]
    parser.add_argument("--data", nargs="*", default=["clinc150", "omniglot"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--only", nargs="*", choices=rows_known, default=usual)
    parser.add_argument("--out", type=Path, default=Path("build/consistent_losses.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in written]
    rows = [row for row in rows if (row["part"], row["steps"]) == (arguments.part, arguments.steps)]
    done = {(row["data"], row["row"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        write_vectors(Path(folder))
        for data in arguments.data:
            for seed in range(arguments.seeds):
                for name in arguments.only:
                    if (data, name, seed) in done:
                        continue
                    rows.append(measure(data, name, seed, arguments.steps, arguments.part, Path(folder)))
                    with arguments.out.open("a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
    print(format_table(rows))


if __name__ == "__main__":
    main()
