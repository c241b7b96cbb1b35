"""What a user gets with default commands: the points that `limen build` and `limen export` take, over HTTP.

    python -m benchmarks.served_points [--seeds 3] [--runs NAME=FOLDER ...] [--sets clinc150 ...]

For each data set and seed: half of the classes are enrolled and the others are strangers. `limen build` makes
a bundle of up to 10 references of each enrolled class (`limen export RUN --gallery` where a run made the
encoder), `limen serve` serves it, and `/v1/match` answers the enrolled classes' other items and the
strangers'. Printed: the point that decides and its FPIR target, how many strangers are matched, how many
known queries are answered right, and how many are at the hindsight threshold, the one among the served scores
that matches the wanted share of just these strangers. "By sampling": how far from that lie thresholds for as
many resampled classes of strangers, in 95 of 100, which no choice from so many classes avoids. Also with real
unknown texts: one half is given to `--unknown`, the other half are the strangers.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.identification import ROOT, embed_grocery
from common.array_types import Bools, Float64s, Int64s
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from evaluation.metrics.class_bootstrap import draw_classes
from limen.client import Client, ServiceError, ServiceUnreachable

REFERENCES, PROBES, STRANGERS = 10, 20, 20
RESAMPLED = 500
LIMEN = Path(sys.executable).with_name("limen")


@dataclass(frozen=True, eq=False)
class Case:
    """A gallery, queries of its classes, and strangers; ``unknown`` are other strangers to calibrate on."""

    gallery: EmbeddingSet
    known: EmbeddingSet
    strangers: EmbeddingSet
    unknown: EmbeddingSet | None = None
    run: Path | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """Of queries: the best score, whether it was accepted, whether the best label is right, and the class."""

    scores: Float64s
    accepted: Bools
    right: Bools
    codes: Int64s


def split_classes(items: EmbeddingSet, seed: int) -> Case:
    """Half of the classes enrolled with references, their other items as queries; the rest are strangers."""
    rng = np.random.default_rng(seed)
    others = np.array_split(rng.permutation(items.classes), 2)[1]
    rows: dict[str, list[np.ndarray]] = {"gallery": [], "known": [], "strangers": []}
    for label in items.classes:
        own = rng.permutation(np.flatnonzero(items.labels == label))
        if label in others:
            rows["strangers"].append(own[:STRANGERS])
            continue
        n = min(REFERENCES, len(own) // 2)
        rows["gallery"].append(own[:n])
        rows["known"].append(own[n : n + PROBES])
    gallery, known, strangers = (items.subset(np.concatenate(rows[name])) for name in rows)
    return Case(gallery, known, strangers)


def read_clinc(seed: int) -> Case:
    return split_classes(_read_clinc_items()[0], seed)


def read_clinc_with_unknown(seed: int) -> Case:
    items, outside = _read_clinc_items()
    case = split_classes(items, seed)
    order = np.random.default_rng(seed).permutation(len(outside))
    half = len(order) // 2
    return Case(case.gallery, case.known, outside.subset(order[:half]), outside.subset(order[half:]))


def _read_clinc_items() -> tuple[EmbeddingSet, EmbeddingSet]:
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "clinc150" / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    outside = labels == "oos"
    return tuple(EmbeddingSet.from_arrays(vectors[rows], labels[rows]) for rows in (~outside, outside))  # type: ignore[return-value]


def read_grocery(seed: int) -> Case:
    """References of the list train, queries of the list test, by the frozen encoder."""
    references, queries = (embed_grocery(part) for part in ("train", "test"))
    case = split_classes(references, seed)
    known = queries.select_classes(np.intersect1d(queries.classes, case.gallery.classes))
    strangers = queries.select_classes(np.setdiff1d(queries.classes, case.gallery.classes))
    return Case(case.gallery, known, strangers)


SETS = {"clinc150": read_clinc, "clinc150, real unknown": read_clinc_with_unknown, "grocery": read_grocery}


def read_run(run: Path, seed: int) -> Case:
    """The unseen classes of a run."""
    case = split_classes(read_embeddings(run / "embeddings" / "test.npz"), seed)
    return Case(case.gallery, case.known, case.strangers, run=run)


def make_bundle(case: Case, folder: Path) -> Path:
    """By default commands alone."""
    _save(case.gallery, folder / "gallery.npz")
    out = folder / "bundle"
    command = [str(LIMEN), "build", str(folder / "gallery.npz"), "--out", str(out)]
    if case.run is not None:
        command = [str(LIMEN), "export", str(case.run), "--gallery", str(folder / "gallery.npz")]
        command += ["--out", str(out)]
    if case.unknown is not None:
        _save(case.unknown, folder / "unknown.npz")
        command += ["--unknown", str(folder / "unknown.npz")]
    subprocess.run(command, check=True, capture_output=True)
    return out


def _save(items: EmbeddingSet, path: Path) -> None:
    np.savez(path, embeddings=items.vectors, labels=items.labels)


@contextmanager
def serve(bundle: Path) -> Iterator[Client]:
    """A client of `limen serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(LIMEN), "serve", str(bundle), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            while True:
                assert process.poll() is None, "the service ended"
                try:
                    client.info()
                    break
                except (ServiceUnreachable, ServiceError):  # the latter while the bundle is loaded
                    time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait()


def ask(client: Client, queries: EmbeddingSet) -> Answers:
    """`/v1/match` for every query."""
    scores, accepted, right = [], [], []
    for first in range(0, len(queries), 500):
        part = slice(first, first + 500)
        results = client.match([{"vector": row.tolist()} for row in queries.vectors[part]]).results
        for result, label in zip(results, queries.labels[part], strict=True):
            scores.append(-np.inf if result.score is None else result.score)
            accepted.append(result.decision == "match")
            right.append(result.label == label)
    codes = queries.codes if len(queries.classes) > 1 else np.arange(len(queries))
    return Answers(np.array(scores), np.array(accepted), np.array(right), codes)


def find_in_hindsight(known: Answers, strangers: Answers, share: float, weights: Float64s) -> float:
    """Known queries answered right where a share of the strangers, their classes weighed, matches."""
    order = np.argsort(-strangers.scores, kind="stable")
    matched = np.cumsum(weights[strangers.codes[order]])
    allowed = min(int(np.searchsorted(matched, share * matched[-1], side="right")), len(order) - 1)
    return float(np.mean(known.right & (known.scores > strangers.scores[order[allowed]])))


def measure(name: str, case: Case) -> None:
    """Print a row."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        bundle = make_bundle(case, Path(folder))
        seconds = time.perf_counter() - start
        with serve(bundle) as client:
            point = client.info().operating_points.match
            assert point is not None
            known, strangers = ask(client, case.known), ask(client, case.strangers)
    share = point.target.value or 0.0
    classes = int(strangers.codes.max()) + 1
    hindsight = find_in_hindsight(known, strangers, share, np.ones(classes))
    resampled = [
        find_in_hindsight(known, strangers, share, weights) - hindsight
        for weights in draw_classes(classes, 0, RESAMPLED)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    right = float(np.mean(known.accepted & known.right))
    enrolled = len(case.gallery.classes)
    print(
        f"| {name} | {enrolled} x {len(case.gallery) / enrolled:.0f} | {point.name} | {share:.1%} | "
        f"{strangers.accepted.mean():.1%} | {right:.1%} | {hindsight:.1%} | {right - hindsight:+.1%} | "
        f"{low:+.1%} to {high:+.1%} | {seconds:.0f} s |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--runs", nargs="*", default=[], help="NAME=FOLDER of finished runs")
    options = parser.parse_args()
    heads = ["data", "gallery", "point", "target", "strangers matched", "known right", "in hindsight", ""]
    print(f"| {' | '.join([*heads, 'by sampling', 'built in'])} |\n|{' --- |' * 10}")
    for name in options.sets:
        for seed in range(options.seeds):
            measure(name, SETS[name](seed))
    for given in options.runs:
        name, _, folder = given.partition("=")
        for seed in range(options.seeds):
            measure(name, read_run(Path(folder), seed))


if __name__ == "__main__":
    main()
