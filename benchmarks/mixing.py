"""Where to mix: Metrix of embeddings and at each block of a network, and what the mixtures explore.

    python -m benchmarks.mixing [--seeds 3] [--steps 300] [--only ROW ...]

CLINC150's sentence vectors, 60 training and 75 unseen intents, two hidden layers. A line a run: recall@1,
MAP@R and debiased log-FAR OPIS of the unseen, and utilization (Venkataramanan et al., ICLR 2022), the mean
squared distance of an unseen item to the nearest of (a) the training embeddings, (b) as many mixtures of two
of different classes, lambda ~ Beta(2, 2), made where the row mixes, and (c) both: low where what training saw
lies near. The table has means and, for rows that mix, the difference from the row that does not with its 95 %
interval over seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.consistent_losses import build_settings, compute_interval, write_vectors
from common.array_types import Float32s

FEATURE = {"name": "metrix", "level": "feature"}
ROWS: dict[str, dict[str, Any] | None] = {
    "multi_similarity": None,
    "embeddings": {"name": "metrix"},
    "block 2": {**FEATURE, "block": 2},
    "block 1": {**FEATURE, "block": 1},
}
FIGURES = ("recall_at_1", "map_at_r", "opis", "to_training", "to_mixtures", "to_both")


def compute_nearest(queries: Float32s, items: Float32s) -> Float32s:
    """Squared distance of each query to the nearest item, unit rows; float32 [q]."""
    blocks = [(queries[start : start + 1024] @ items.T).max(1) for start in range(0, len(queries), 1024)]
    return 2 - 2 * np.concatenate(blocks)


def mix(network: Any, inputs: torch.Tensor, labels: Any, block: int | None) -> Float32s:
    """As many mixtures as there are training items, made after a block, or of embeddings; unit rows."""
    random = np.random.default_rng(0)
    other = random.permutation(len(labels))
    same = np.flatnonzero(labels == labels[other])
    while len(same):
        other[same] = random.integers(0, len(labels), len(same))
        same = np.flatnonzero(labels == labels[other])
    fraction = torch.from_numpy(random.beta(2, 2, (len(labels), 1)).astype(np.float32))
    with torch.inference_mode():
        values = network(inputs) if block is None else network.extract_features(inputs, block)
        mixed = fraction * values + (1 - fraction) * values[other]
        if block is not None:
            mixed = network.project(network.finish_features(mixed, block))
        return torch.nn.functional.normalize(mixed, dim=1).numpy()


def measure(row: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """One run."""
    from api_schemas.config import Config
    from evaluation.evaluate import evaluate_embeddings
    from training.loop.train import train

    settings = build_settings("clinc150", "multi_similarity", seed, steps, folder)
    settings["model"] = {"backbone": "mlp", "hidden": [256, 256], "embedding_dim": 128}
    mixup = ROWS[row]
    if mixup:
        settings["mixup"] = mixup
    with tempfile.TemporaryDirectory() as out:
        run = train(Config.model_validate(settings), Path(out) / "run")
        known, unseen = (run.load_embeddings(part) for part in ("train", "test"))
        network = run.load_network().eval()
    assert known is not None
    assert unseen is not None
    with np.load(folder / "intents.npz") as archive:
        inputs = torch.from_numpy(archive["embeddings"][known.ids.astype(np.int64)])
    mixtures = mix(network, inputs, known.labels, (mixup or {}).get("block"))
    report = evaluate_embeddings(unseen, model_hash="", split="test")
    near, mixed = (compute_nearest(unseen.vectors, items) for items in (known.vectors, mixtures))
    return {
        "row": row,
        "seed": seed,
        "recall_at_1": report.retrieval.recall_at_1,
        "map_at_r": report.retrieval.map_at_r,
        "opis": report.consistency.opis_logfar_debiased,
        "to_training": float(near.mean()),
        "to_mixtures": float(mixed.mean()),
        "to_both": float(np.minimum(near, mixed).mean()),
    }


def main() -> None:
    """Run everything, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_vectors(Path(folder))
        for seed in range(arguments.seeds):
            for name in arguments.only:
                rows.append(measure(name, seed, arguments.steps, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
    print("| mixed | seeds | " + " | ".join(FIGURES) + " |")
    print("| --- " * (2 + len(FIGURES)) + "|")
    base = {row["seed"]: row for row in rows if row["row"] == "multi_similarity"}
    for name in arguments.only:
        mine = {row["seed"]: row for row in rows if row["row"] == name}
        cells = []
        for key in FIGURES:
            cell = f"{statistics.fmean(row[key] for row in mine.values()):.4f}"
            if name != "multi_similarity" and base:
                mean, half = compute_interval([mine[seed][key] - base[seed][key] for seed in mine])
                cell += f" ({mean:+.4f} +- {half:.4f})"
            cells.append(cell)
        print(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
