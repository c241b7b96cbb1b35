"""Swapped labels found again: the label audit beside cleanlab on the same embeddings; and 100,000 items.

    python -m benchmarks.label_audit [--draws 3] [--grocery] [--runs NAME=FOLDER ...] [--items 100000]
        [--epochs 15] [--loss multi_similarity]

The labels of 5 % of the items are passed round among them. Prints the fraction of items with a wrong label
among the first 5 % and the first 1 % of the list. cleanlab (if it is installed) ranks by the quality of
labels under out-of-sample probabilities of a logistic regression, in 5 folds. With --epochs a network is
trained on 270 characters of Omniglot whose labels were swapped before, and its training items are audited
with and without the margins of training. Ends with exit code 1 where less than 80 % of the first 5 % are
wrong labels.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import warnings
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np

from benchmarks.identification import embed_grocery
from common.array_types import Bools, Float64s
from embeddings.embedding_set import EmbeddingSet, concatenate
from embeddings.files import read_embeddings
from evaluation.label_audit.audit_labels import audit_labels

ROOT = Path(__file__).resolve().parents[1]
SWAPPED = 0.05
BAR = 0.8
TRAINED = 300  # characters, of which nine in ten are trained on
SPLIT = {"by": "class", "train": 0.9, "validation": 0.05, "test": 0.05}


def swap_labels(items: EmbeddingSet, seed: int) -> tuple[EmbeddingSet, Bools]:
    """The labels of some rows passed round among them, and which rows have another label now."""
    rows = np.random.default_rng(seed).permutation(len(items))[: round(SWAPPED * len(items))]
    labels = items.labels.copy()
    labels[rows] = items.labels[np.roll(rows, 1)]
    return replace(items, labels=labels), labels != items.labels


def rank_with_cleanlab(items: EmbeddingSet) -> Float64s:
    """The quality of each label, low where it is likely to be wrong."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probabilities = cross_val_predict(
            LogisticRegression(C=10.0, max_iter=200), items.vectors, items.codes, cv=5, method="predict_proba"
        )
    return np.asarray(get_label_quality_scores(items.codes, probabilities))


def compare(name: str, items: EmbeddingSet, draws: int, peer: bool) -> bool:
    """Print one table row per method; whether the bar is met in every draw."""
    rows: dict[str, list[tuple[float, float, float]]] = {"limen data audit": []}
    for seed in range(draws):
        swapped, is_wrong = swap_labels(items, seed)
        start = perf_counter()
        found = [finding.id for finding in audit_labels(swapped).findings]
        position = dict(zip(swapped.ids.tolist(), range(len(swapped)), strict=True))
        rows["limen data audit"].append(
            _measure(np.array([position[one] for one in found]), is_wrong, perf_counter() - start)
        )
        if peer:
            start = perf_counter()
            order = np.argsort(rank_with_cleanlab(swapped), kind="stable")
            rows.setdefault("cleanlab", []).append(_measure(order, is_wrong, perf_counter() - start))
    for method, values in rows.items():
        at_5, at_1, seconds = np.mean(values, axis=0)
        print(
            f"| {name}, {len(items)} items of {len(items.classes)} labels | {method} | {at_5:.3f} "
            f"| {at_1:.3f} | {seconds:.1f} s |",
            flush=True,
        )
    return min(value[0] for value in rows["limen data audit"]) >= BAR


def _measure(order: np.ndarray, is_wrong: Bools, seconds: float) -> tuple[float, float, float]:
    n = len(is_wrong)
    first = is_wrong[order[: round(SWAPPED * n)]]
    return float(first.mean()), float(is_wrong[order[: n // 100]].mean()), seconds


def compare_trained(archive: Path, epochs: int, loss: str, seed: int) -> bool:
    """Train on swapped labels, and print a row without and one with the margins; whether the bar is met."""
    from api_schemas.config import Config
    from training.loop.train import train

    with TemporaryDirectory() as temporary, zipfile.ZipFile(archive) as zipped:
        names = np.array(sorted(name for name in zipped.namelist() if name.endswith(".png")))
        classes = np.char.rpartition(names, "/")[:, 0]
        rng = np.random.default_rng(seed)
        kept = np.isin(classes, rng.permutation(np.unique(classes))[:TRAINED])
        names, classes = names[kept], classes[kept]
        items = EmbeddingSet.from_arrays(np.ones((len(names), 1)), np.char.replace(classes, "/", "+"), names)
        swapped, is_wrong = swap_labels(items, seed)
        for name, label, wrong in zip(names, swapped.labels, is_wrong, strict=True):
            path = Path(temporary) / "data" / label / f"{'wrong' if wrong else 'right'}_{Path(name).name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(zipped.read(name))
        config = Config.model_validate(
            {
                "data": {"path": f"{temporary}/data", "image_size": 28, "split": SPLIT},
                "model": {"backbone": "conv4", "widths": [32, 64, 64, 64], "embedding_dim": 64},
                "loss": loss,
                "sampler": {"batch_size": 256, "items_per_class": 4},
                "optimizer": {"lr": 2e-3},
                "schedule": {"epochs": epochs, "shape": "one_cycle"},
                "seed": seed,
            }
        )
        run = train(config, Path(temporary) / "run")
        learnt, margins = run.load_embeddings("train"), run.load_item_margins()
    assert learnt is not None
    position = dict(zip(learnt.ids.tolist(), range(len(learnt)), strict=True))
    wrong = np.char.find(learnt.ids, "wrong_") >= 0
    precision = 0.0
    for method, known in (("neighbours", None), ("neighbours and margins of training", margins)):
        start = perf_counter()
        found = [finding.id for finding in audit_labels(learnt, training_margins=known).findings]
        precision, at_1, seconds = _measure(
            np.array([position[one] for one in found]), wrong, perf_counter() - start
        )
        print(
            f"| Omniglot, {len(learnt)} items, {epochs} epochs of {loss} | {method} | {precision:.3f} "
            f"| {at_1:.3f} | {seconds:.1f} s |",
            flush=True,
        )
    return precision >= BAR


def time_items(n: int) -> None:
    """Audit simulated classes of 50 in 128 dimensions."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n // 50), 50)
    vectors = rng.normal(size=(n // 50, 128)).astype(np.float32)[labels]
    vectors += 0.8 * rng.normal(size=(len(labels), 128)).astype(np.float32)
    items = EmbeddingSet.from_arrays(vectors, labels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = perf_counter(), process_time()
    audit_labels(items)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wall, cpu = perf_counter() - start, process_time() - cpu
    print(f"\n{len(labels)} x 128: {wall:.1f} s on the clock, {cpu:.1f} s of CPU, {more:.0f} MiB more.")


def main() -> int:
    """Prints the table; 1 where the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--loss", default="multi_similarity")
    given = parser.parse_args()
    peer = find_spec("cleanlab") is not None
    if not peer:
        print("cleanlab is not installed: its rows are left out (pip install cleanlab).")
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "clinc150" / "clinc150_minilm.npz") as archive:
        clinc = EmbeddingSet.from_arrays(archive["embeddings"].astype(np.float32), archive["labels"])
    print("| data | ranked by | wrong among the first 5 % | first 1 % | time |")
    print("| --- | --- | --- | --- | --- |")
    good = [compare("CLINC150", clinc.subset(clinc.labels != "oos"), given.draws, peer)]
    if given.grocery:
        parts = [embed_grocery(part) for part in ("train", "val", "test")]
        photos = [
            EmbeddingSet(part.vectors, part.labels, np.char.add(name, part.ids))
            for name, part in zip("abc", parts, strict=True)
        ]
        good.append(compare("Grocery", concatenate(photos), given.draws, peer))
    for run in given.runs:
        name, _, path = run.partition("=")
        test = read_embeddings(Path(path) / "embeddings" / "test.npz")
        good.append(compare(name, test, given.draws, peer))
    if given.epochs:
        zipped = folder / "omniglot" / "images_background.zip"
        good.append(compare_trained(zipped, given.epochs, given.loss, 1))
    time_items(given.items)
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
