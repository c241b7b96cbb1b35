"""Retrieval of each loss: Omniglot, 300 training classes, one small network, the same budget, several seeds.

    python -m benchmarks.losses_learning [--seeds 3] [--steps 200] [--only NAME ...] --out results.jsonl
    python -m benchmarks.losses_learning --step-times

The second form prints what a step of each row takes: forward, backward and update on random images.

One trial each: every loss runs at its defaults, class vectors at 100 times the network's learning rate. Each
line of the output is one run on 600 unseen classes: recall@1, MAP@R, EER, OPIS, debiased OPIS over log FAR,
step time and peak memory. Every row runs once, then the most important get their further seeds first. Runs
already in the file are not repeated; the table at the end is over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPLIT = {"by": "class", "train": 300, "validation": 64, "test": 600}  # of the 964 background characters
FIGURES = ("recall_at_1", "map_at_r", "eer", "opis", "opis_logfar_debiased", "step_ms", "peak_mib")


FIXED = {"margin_plus": 0.9, "margin_minus": 0.5}
QUANTILES = {"margin_plus": None, "margin_minus": None}


def _add_tcm(weight: float = 1.0, base: str = "multi_similarity", **parameters: Any) -> dict[str, Any]:
    return {
        "loss": [
            {"name": base},
            {"name": "threshold_consistent_margin", "weight": weight, **FIXED, **parameters},
        ]
    }


def _add_softmax(name: str, weight: float) -> dict[str, Any]:
    return {"loss": [{"name": "normalized_softmax"}, {"name": name, "weight": weight}]}


def _add_metrix(loss: str, **parameters: Any) -> dict[str, Any]:
    return {"loss": [{"name": loss}], "mixup": {"name": "metrix", **parameters}}


EXTRA: dict[str, dict[str, Any]] = {
    "multi_similarity + tcm": _add_tcm(),
    "multi_similarity + tcm by quantiles": _add_tcm(**QUANTILES),
    "multi_similarity + opis_variance": {
        "loss": [{"name": "multi_similarity"}, {"name": "opis_variance", "weight": 10.0}]
    },
    "triplet + tcm by quantiles": _add_tcm(base="triplet", **QUANTILES),
    "multi_similarity + tcm by quantiles, frr 0.5": _add_tcm(**QUANTILES, frr=0.5),
    "triplet + tcm by quantiles, frr 0.5": _add_tcm(base="triplet", **QUANTILES, frr=0.5),
    "metrix of multi_similarity": _add_metrix("multi_similarity"),
    "multi_similarity + tcm to 0.3": _add_tcm(margin_minus=0.3),
    "triplet + tcm": _add_tcm(base="triplet"),
    "triplet + tcm 0.98 / 0.93": _add_tcm(base="triplet", margin_plus=0.98, margin_minus=0.93),
    "multi_similarity + tcm minus only, to 0.3": _add_tcm(lambda_plus=0.0, margin_minus=0.3),
    "multi_similarity + tcm plus only": _add_tcm(lambda_minus=0.0),
    "multi_similarity + 0.2 tcm": _add_tcm(0.2),
    "multi_similarity + tcm 0.8 / 0.2": _add_tcm(margin_plus=0.8, margin_minus=0.2),
    "multi_similarity + tcm by classes": _add_tcm(balance="classes"),
    "metrix of multi_similarity, features": _add_metrix("multi_similarity", level="feature"),
    "metrix of multi_similarity, inputs": _add_metrix("multi_similarity", level="input"),
    "metrix of multi_similarity, w 0.1": _add_metrix("multi_similarity", weight=0.1),
    "metrix of contrastive": _add_metrix("contrastive"),
    "metrix of proxy_anchor": _add_metrix("proxy_anchor"),
    "multi_similarity + memory": {
        "loss": [{"name": "multi_similarity"}],
        "memory": {"name": "cross_batch", "size": 2048, "warmup": 100},
    },
    "unpg over arcface": {"loss": [{"name": "unpg", "base": "arcface"}]},
    "proxy_anchor from class means": {"loss": [{"name": "proxy_anchor", "start_from_class_means": True}]},
    "proto_triplet, 32-way 1-shot episodes": {
        "loss": [{"name": "proto_triplet", "shots": 1}],
        "sampler": {"name": "episodic", "batch_size": 128, "items_per_class": 4},
    },
    "nca, scale 16": {"loss": [{"name": "nca", "softmax_scale": 16}]},
    "lifted_structure, scale 1": {"loss": [{"name": "lifted_structure", "scale": 1.0}]},
    "normalized_softmax + 0.1 center": _add_softmax("center", 0.1),
    "normalized_softmax + nd": _add_softmax("nd", 1.0),
}
"""Compositions beside the single losses, the most important first."""

WIDER = {
    "d_simplex": {
        "loss": [{"name": "d_simplex"}],
        "model": {"backbone": "conv4", "widths": [32, 32, 64, 64], "embedding_dim": 1200},
    }
}
"""A corner for each of 1,200 classes (rotated images are classes too) takes a wider embedding."""

BASES = (
    *("multi_similarity", "triplet", "contrastive", "circle"),
    *("proxy_anchor", "normalized_softmax", "sup_con"),
)


def list_runs() -> dict[str, dict[str, Any]]:
    """Name of a row to its part of the configuration, the most important first."""
    from training.losses import LOSSES

    single = {name: {"loss": [{"name": name}]} for name in [*BASES, *LOSSES]}
    return {name: {**single, **EXTRA, **WIDER}[name] for name in [*BASES, *EXTRA, *single]}


def build_settings(name: str, seed: int, steps: int) -> dict[str, Any]:
    """The configuration of a row."""
    folder = os.environ.get("LIMEN_DATASETS", "../shared/data")
    return {
        "name": "learning",
        "seed": seed,
        "data": {
            "path": f"{folder}/omniglot/images_background.zip",
            "image_size": 28,
            "hierarchy": "path",  # the alphabets
            "split": {**SPLIT, "seed": seed},
        },
        "model": {"backbone": "conv4", "widths": [32, 32, 64, 64], "embedding_dim": 64},
        "sampler": {"batch_size": 128, "items_per_class": 4},
        "optimizer": {"lr": 2e-3, "loss_lr_factor": 100.0},
        "schedule": {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
        **list_runs()[name],
    }


def measure_step(name: str, steps: int = 7) -> float:
    """Median of some steps without the data: 128 random images of 32 of the 1,200 classes."""
    import torch

    from api_schemas.config import Config
    from api_schemas.preprocessing import ImageInput
    from encoder.inputs.image_input import ImagePreprocessing
    from training.models.network import build_network
    from training.objective.objective import Objective

    config = Config.model_validate(build_settings(name, 0, 1))
    rule = ImagePreprocessing(ImageInput(mode="L", height=28, width=28, mean=[0.0], std=[1.0]))
    network, objective = build_network(config.model, rule).train(), Objective(config, 1200).train()
    optimizer = torch.optim.AdamW([*network.parameters(), *objective.parameters()], fused=True)
    images, labels = torch.randn(128, 1, 28, 28), torch.arange(128) // 4
    images = images.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        features = network.extract_features(images)
        mixing: dict[str, Any] = {}
        if objective.level == "input":
            mixing = {"mixable": images, "encode": network}
        elif objective.level == "feature":
            mixing = {"mixable": features, "encode": network.project}
        objective(network.project(features), labels, **mixing).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(name: str, seed: int, steps: int) -> dict[str, Any]:
    """One run in this process."""
    import torch

    from api_schemas.config import Config
    from evaluation.evaluate import evaluate_embeddings
    from training.loop.train import train

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    config = Config.model_validate(build_settings(name, seed, steps))
    with tempfile.TemporaryDirectory() as out:
        run = train(config, Path(out) / "run")
        items = run.load_embeddings("test")
        assert items is not None
        report = evaluate_embeddings(items, model_hash="", split="test")
        seconds = run.train_seconds
    figures = {
        "recall_at_1": report.retrieval.recall_at_1,
        "map_at_r": report.retrieval.map_at_r,
        "eer": report.verification.eer,
        "opis": report.consistency.opis,
        "opis_logfar_debiased": report.consistency.opis_logfar_debiased,
        "step_ms": 1000 * seconds / steps,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    # the cosines at pooled FAR 10 % and 1 %: where a threshold would lie
    far_range = list(report.consistency.calibration_range.score)
    return {"name": name, "seed": seed, "steps": steps, **figures, "far_range": far_range}


def format_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean over seeds, and the spread of the debiased OPIS over them."""
    lines = [
        "| loss | seeds | recall@1 | MAP@R | EER | OPIS | debiased log-FAR OPIS | step ms | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        mean = {key: statistics.fmean(row[key] for row in mine) for key in FIGURES}
        spread = statistics.stdev(row["opis_logfar_debiased"] for row in mine) if len(mine) > 1 else 0.0
        lines.append(
            f"| {name} | {len(mine)} | {mean['recall_at_1']:.3f} | {mean['map_at_r']:.3f} "
            f"| {mean['eer']:.3f} | {mean['opis']:.4f} "
            f"| {mean['opis_logfar_debiased']:.4f} +- {spread:.4f} "
            f"| {mean['step_ms']:.0f} | {mean['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, each in a process of its own, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("build/losses_learning.jsonl"))
    parser.add_argument("--step-times", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.steps)))
        return
    if arguments.step_times:
        for name in arguments.only or list_runs():
            print(json.dumps({"name": name, "step_ms": measure_step(name)}), flush=True)
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["name"], row["seed"], row["steps"]) for row in rows}
    names = arguments.only or list(list_runs())
    plan = [(name, 0) for name in names]
    plan += [(name, seed) for name in names for seed in range(1, arguments.seeds)]
    for name, seed in plan:
        if (name, seed, arguments.steps) in done:
            continue
        command = [sys.executable, "-m", "benchmarks.losses_learning", "--steps", str(arguments.steps)]
        result = subprocess.run([*command, "--one", name, str(seed)], capture_output=True, text=True)
        if result.returncode:
            print(f"{name}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        rows.append(json.loads(result.stdout.splitlines()[-1]))
        with arguments.out.open("a") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    print(format_table(rows))


if __name__ == "__main__":
    main()
