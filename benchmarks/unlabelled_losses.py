"""Losses of training without labels against NT-Xent at one budget: two views of Omniglot's drawings.

    python -m benchmarks.unlabelled_losses [--seeds 3] [--steps 300] [--only NAME ...]
        --out build/unlabelled_losses.jsonl

300 characters train, whose labels nobody looks at, 100 unseen ones are measured: recall@1, MAP@R and FNIR at
FPIR 5 %. A small conv4, 32 drawings in two views a batch (rotation, shift, scale, elastic distortion);
network, batches and split follow from the seed. A line a run; runs already in the file are not repeated. The
table gives the mean and the difference from NT-Xent, seed by seed, with its 95 % interval by Student's t.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.retrieval_losses import format_table, measure_unseen

BASE = "nt_xent"
ROWS: dict[str, list[dict[str, Any]]] = {
    "nt_xent": [{"name": "nt_xent"}],
    "isogclr": [{"name": "isogclr"}],
    "groco": [{"name": "groco"}],
    "interclr": [{"name": "interclr", "start": 50}],
    "pamc": [{"name": "pamc"}],
    "amcl": [{"name": "amcl"}],
    "isr": [{"name": "isr"}],
    "nt_xent, bad pairs": [{"name": "nt_xent", "bad_pairs": {}}],
    # what explains a row that stays behind
    "nt_xent, temperature 0.2": [{"name": "nt_xent", "temperature": 0.2}],
    "groco, steepness 10": [{"name": "groco", "steepness": 10.0}],
    "pamc, temperature 0.1": [{"name": "pamc", "temperature": 0.1}],
    "interclr, temperature 0.07": [{"name": "interclr", "start": 50, "temperature": 0.07}],
    "amcl, all negatives": [{"name": "amcl", "nearest": 1.0}],
    "amcl, nearest negative": [{"name": "amcl", "nearest": 0.01}],
    "amcl, 1 head": [{"name": "amcl", "heads": 1}],
}


def build_settings(name: str, seed: int, steps: int) -> dict[str, Any]:
    """The configuration of a row."""
    folder = os.environ.get("LIMEN_DATASETS", "../shared/data")
    return {
        "seed": seed,
        "data": {
            "path": f"{folder}/omniglot/images_background.zip",
            "image_size": 28,
            "split": {"by": "class", "train": 300, "validation": 20, "test": 100, "seed": seed},
            "augmentation": {
                **{"rotate_degrees": 15, "shift": 0.1, "scale": 0.2},
                **{"shear": 0.2, "elastic": 0.05, "erase": 0.2},
            },
        },
        "model": {"backbone": "conv4", "widths": [16, 16, 32, 32], "embedding_dim": 64},
        "loss": ROWS[name],
        "sampler": {"name": "two_views", "batch_size": 64},
        "optimizer": {"lr": 2e-3},
        "schedule": {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
    }


def measure(name: str, seed: int, steps: int) -> dict[str, Any]:
    """One run."""
    import torch

    from api_schemas.config import Config
    from training.loop.train import train

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as out:
        run = train(Config.model_validate(build_settings(name, seed, steps)), Path(out) / "run")
        items = run.load_embeddings("test")
    assert items is not None
    return {"data": "omniglot", "row": name, "seed": seed, "steps": steps, **measure_unseen(items)}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("build/unlabelled_losses.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [row for row in map(json.loads, written) if row["steps"] == arguments.steps]
    done = {(row["row"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            if (name, seed) in done:
                continue
            rows.append(measure(name, seed, arguments.steps))
            with arguments.out.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], file=sys.stderr, flush=True)
    print(format_table(rows, BASE))


if __name__ == "__main__":
    main()
