"""Losses of the retrieval family against NT-Xent at one budget: CLINC150, 75 unseen intents.

    python -m benchmarks.retrieval_losses [--data vectors static] [--seeds 3] [--steps 300] [--only NAME ...]
        --out build/retrieval_losses.jsonl

`vectors`: sentence vectors as they are and a linear head of 128 numbers; `static`: the texts, whose table of
token embeddings (WordLlama) is trained. 60 intents train, 15 validate, 75 are measured; network, batches and
split follow from the seed. A line a run: recall@1, MAP@R and FNIR at FPIR 5 %, each unseen intent being left
out of the gallery once; runs already in the file are not repeated. The table gives the mean and the
difference from NT-Xent, seed by seed, with its 95 % interval by Student's t.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.consistent_losses import build_settings, compute_interval, write_vectors
from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics.identification import build_trials, find_refused_score
from evaluation.metrics.retrieval import measure_retrieval
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs

BASE = "nt_xent"
ROWS: dict[str, list[dict[str, Any]]] = {
    "nt_xent": [{"name": "nt_xent"}],
    "multi_similarity": [{"name": "multi_similarity"}],
    "siglip": [{"name": "siglip"}],
    "ccl": [{"name": "ccl"}],
    "decoupled_softmax": [{"name": "decoupled_softmax"}],
    "soft_top_k": [{"name": "soft_top_k"}],
    "arm": [{"name": "arm"}],
    "clp": [{"name": "clp"}],
    "uncertainty, falling, beside nt_xent": [
        {"name": "nt_xent", "weight": {"start": 0.0, "end": 0.63}},
        {"name": "uncertainty", "weight": {"start": 1.0, "end": 0.37}},
    ],
    "nt_xent + 0.1 rank_mixup": [{"name": "nt_xent"}, {"name": "rank_mixup", "weight": 0.1}],
    "nt_xent + neural_collapse": [{"name": "nt_xent"}, {"name": "neural_collapse"}],
    "lmpt": [{"name": "lmpt"}],
    "isr": [{"name": "isr"}],
    "pamc": [{"name": "pamc"}],
    "groco": [{"name": "groco"}],
    "isogclr": [{"name": "isogclr"}],
    "nt_xent, bad pairs": [{"name": "nt_xent", "bad_pairs": {}}],
    # what explains a row that stays behind
    "siglip, offset -10": [{"name": "siglip", "offset": -10.0}],
    "pamc, temperature 0.1": [{"name": "pamc", "temperature": 0.1}],
    "groco, steepness 10": [{"name": "groco", "steepness": 10.0}],
    "arm, adaptive": [{"name": "arm", "form": "adaptive"}],
    "uncertainty": [{"name": "uncertainty"}],
    "uncertainty, scale 16": [{"name": "uncertainty", "scale": 16.0}],
}
FIGURES = {"recall_at_1": "recall@1", "map_at_r": "MAP@R", "fnir": "FNIR at FPIR 5 %"}
FPIR = "0.05"


def build_static(row: list[dict[str, Any]], seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The texts, with the table of token embeddings that is trained."""
    encoders = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")).resolve() / "encoders"
    return {
        "seed": seed,
        "data": {
            "kind": "text",
            "path": str(folder / "intents.jsonl"),
            "split": {"by": "class", "train": 60, "validation": 15, "test": 75, "seed": seed},
            "text": {"tokenizer": str(encoders / "wordllama_tokenizer.json"), "length": 32},
        },
        "model": {
            "backbone": f"static:{encoders / 'wordllama_256.safetensors'}",
            "head": "none",
            "embedding_dim": 256,
            "token_weights": True,
            "dropout": 0.3,
        },
        "loss": row,
        "sampler": {"batch_size": 128, "items_per_class": 4},
        "optimizer": {"lr": 1e-2},
        "schedule": {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
    }


def measure(data: str, name: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """One run."""
    import torch

    from api_schemas.config import Config
    from training.loop.train import train

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if data == "static":
        settings = build_static(ROWS[name], seed, steps, folder)
    else:
        settings = build_settings("clinc150", BASE, seed, steps, folder) | {"loss": ROWS[name]}
    with tempfile.TemporaryDirectory() as out:
        run = train(Config.model_validate(settings), Path(out) / "run")
        items = run.load_embeddings("test")
    assert items is not None
    return {"data": data, "row": name, "seed": seed, "steps": steps, **measure_unseen(items)}


def measure_unseen(items: EmbeddingSet) -> dict[str, float]:
    """Figures of items whose classes were not trained on."""
    sweep = sweep_pairs(arrange(items), per_query=True)
    assert sweep.ranks is not None
    retrieval, trials = measure_retrieval(sweep.ranks), build_trials(sweep, None)
    matched = trials.right & (trials.known > find_refused_score(trials.unknown, FPIR))
    return {
        "recall_at_1": float(retrieval.recall_at_1 or 0),
        "map_at_r": float(retrieval.map_at_r or 0),
        "fnir": float(1 - matched.mean()),
    }


def format_table(rows: list[dict[str, Any]], base: str = BASE) -> str:
    """Markdown: mean of each row, and its difference from the base."""
    lines = ["| data | loss | seeds | " + " | ".join(FIGURES.values()) + " |"]
    lines.append("| --- " * (3 + len(FIGURES)) + "|")
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        bases = {row["seed"]: row for row in of_data if row["row"] == base}
        for name in dict.fromkeys(row["row"] for row in of_data):
            mine = {row["seed"]: row for row in of_data if row["row"] == name}
            cells = []
            for key in FIGURES:
                cell = f"{statistics.fmean(row[key] for row in mine.values()):.4f}"
                both = [seed for seed in mine if seed in bases]
                if name != base and both:
                    mean, half = compute_interval([mine[seed][key] - bases[seed][key] for seed in both])
                    cell += f" ({mean:+.4f} +- {half:.4f})"
                cells.append(cell)
            lines.append(f"| {data} | {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_texts(folder: Path) -> None:
    """CLINC150's texts with an intent, as JSON Lines."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "clinc150" / "data_full.json"
    parts: dict[str, list[list[str]]] = json.loads(source.read_text())
    rows = [(text, label) for part in parts.values() for text, label in part if label != "oos"]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "intents.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", choices=("vectors", "static"), default=["vectors", "static"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("build/retrieval_losses.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in written]
    rows = [row for row in rows if row["steps"] == arguments.steps]
    done = {(row["data"], row["row"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        write_vectors(Path(folder))
        write_texts(Path(folder))
        plan = [(d, n, s) for d in arguments.data for s in range(arguments.seeds) for n in arguments.only]
        for data, name, seed in plan:
            if (data, name, seed) in done:
                continue
            rows.append(measure(data, name, seed, arguments.steps, Path(folder)))
            with arguments.out.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], file=sys.stderr, flush=True)
    print(format_table(rows))


if __name__ == "__main__":
    main()
