"""Groups of unlabelled vectors beside the truth, HDBSCAN and connected components; and a pool of 100,000.

    python -m benchmarks.grouping [--draws 3] [--grocery] [--runs NAME=FOLDER ...] [--pool 100000]

Pools of unseen classes: of each of half of them 2 to 40 items (as many as there are), and as many items
again, each the only one of its class (of CLINC150 out-of-scope texts). The other classes give pair
thresholds at FAR 1 %, 0.3 % and 20 / n, at which an item of a pool of n has 20 false partners. Prints
precision and recall of pairs, and of items (BCubed: Bagga & Baldwin 1998); an item in no group is a group
of its own. Ends with exit code 1 where the pool takes more than 60 s on two cores, or where HDBSCAN with
the same least size, or connected components at the same threshold, have the higher F1 of items.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.identification import embed_grocery
from common.array_types import Int64s, UnitVectors
from embeddings.embedding_set import EmbeddingSet, concatenate
from embeddings.files import read_embeddings
from evaluation.grouping.group_vectors import group_vectors
from evaluation.grouping.split_groups import split_groups
from evaluation.pairs.copies import join_groups

ROOT = Path(__file__).resolve().parents[1]
FARS = (0.01, 0.003)
FALSE_PARTNERS = 20
SMALLEST = (2, 5)
RULE = "FAR 20 / n"
MOST_EACH, MOST_CLASSES = 40, 150
STRICT = 0.6  # similarity of the cores by which groups of the large pool are taken apart
LIMIT = 60.0  # seconds of both cores together for the pool, halved for each


@dataclass(frozen=True, eq=False)
class Pool:
    """Vectors with their true classes, and thresholds from other classes by their name."""

    vectors: UnitVectors
    truth: Int64s
    thresholds: dict[str, float]


def draw_pool(items: EmbeddingSet, alone: EmbeddingSet | None, seed: int) -> Pool:
    """A pool of half of the classes; ``alone`` are items of no class, else further classes give one each."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(items.classes)
    fit, rest = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    several = rest if alone is not None else rest[: max(len(rest) // 2, len(rest) - 400)]
    several = several[:MOST_CLASSES]
    rows = [
        rng.permutation(np.flatnonzero(items.labels == name))[: rng.integers(2, MOST_EACH + 1)]
        for name in several
    ]
    vectors = [items.vectors[np.concatenate(rows)]]
    truth = [np.repeat(np.arange(len(rows)), list(map(len, rows)))]
    n = len(truth[0])
    if alone is not None:
        vectors.append(alone.vectors[rng.permutation(len(alone))[:n]])
    else:
        singles = [rng.choice(np.flatnonzero(items.labels == name)) for name in rest[len(several) :]]
        vectors.append(items.vectors[np.array(singles[:n], dtype=np.int64)])
    truth.append(len(rows) + np.arange(len(vectors[1])))
    known = items.select_classes(fit[:MOST_CLASSES])
    known = known.subset(rng.permutation(len(known))[:4000])
    scores = known.vectors @ known.vectors.T
    impostor = np.sort(scores[np.triu(known.codes[:, None] != known.codes[None, :])])
    pool, labels = np.concatenate(vectors), np.concatenate(truth)
    fars = {RULE: FALSE_PARTNERS / len(pool)} | {f"FAR {100 * far:g} %": far for far in FARS}
    thresholds = {name: float(impostor[int((1 - far) * len(impostor))]) for name, far in fars.items()}
    return Pool(pool, labels, thresholds)


def join_components(vectors: UnitVectors, threshold: float) -> Int64s:
    """Connected components of the pairs that reach the threshold."""
    i, j = np.nonzero(np.triu(vectors @ vectors.T >= threshold, 1))
    return join_groups(len(vectors), [(i.astype(np.int64), j.astype(np.int64))])


def run_hdbscan(vectors: UnitVectors, smallest: int) -> Int64s:
    """HDBSCAN of scikit-learn, whose threshold is in the data."""
    from sklearn.cluster import HDBSCAN

    return np.asarray(HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(vectors.astype(np.float64)))


def measure(truth: Int64s, groups: Int64s) -> dict[str, float]:
    """Precision and recall of pairs and of items."""
    own = np.where(groups < 0, groups.max() + 1 + np.arange(len(groups)), groups)
    same, together = truth[:, None] == truth[None, :], own[:, None] == own[None, :]
    both = same & together
    upper = np.triu(np.ones_like(same), 1).astype(bool)
    pairs = [int((what & upper).sum()) for what in (both, together, same)]
    precision, recall = ((both.sum(axis=1) / what.sum(axis=1)).mean() for what in (together, same))
    return {
        "pair precision": pairs[0] / max(1, pairs[1]),
        "pair recall": pairs[0] / max(1, pairs[2]),
        "item precision": float(precision),
        "item recall": float(recall),
        "item F1": float(2 * precision * recall / (precision + recall)),
    }


def list_methods(pool: Pool) -> Iterator[tuple[str, Callable[[], Int64s]]]:
    """Every way of grouping a pool, by name."""
    for name, threshold in pool.thresholds.items():
        for smallest in SMALLEST[: 2 if name == RULE else 1]:
            yield (
                f"ours, {name}, from {smallest} items",
                lambda t=threshold, n=smallest: group_vectors(pool.vectors, t, min_size=n).of_row,  # type: ignore[misc]
            )
        yield f"components, {name}", lambda t=threshold: join_components(pool.vectors, t)  # type: ignore[misc]
    for smallest in SMALLEST:
        yield f"HDBSCAN, from {smallest} items", lambda n=smallest: run_hdbscan(pool.vectors, n)  # type: ignore[misc]


def compare(name: str, pools: list[Pool]) -> bool:
    """Print a table; whether ours is better than the peers."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for pool in pools:
        for method, run in list_methods(pool):
            found[method].append(measure(pool.truth, run()))
    sizes = ", ".join(
        f"{len(pool.truth)} items of {len(np.unique(pool.truth))} classes" for pool in pools[:1]
    )
    head = f"{name} ({sizes}, {len(pools)} draws)"
    print(f"\n| {head} | pairs: precision, recall | items: precision, recall, F1 |")
    print("| --- | --- | --- |")
    means = {
        method: {figure: float(np.mean([one[figure] for one in values])) for figure in values[0]}
        for method, values in found.items()
    }
    for method, m in means.items():
        print(
            f"| {method} | {m['pair precision']:.3f}, {m['pair recall']:.3f} | {m['item precision']:.3f}, "
            f"{m['item recall']:.3f}, {m['item F1']:.3f} |",
            flush=True,
        )
    f1 = {method: m["item F1"] for method, m in means.items()}
    peers = [f"HDBSCAN, from {smallest} items" for smallest in SMALLEST]
    good = all(
        f1[f"ours, {RULE}, from {smallest} items"] > f1[peer]
        for smallest, peer in zip(SMALLEST, peers, strict=True)
    )
    return good and f1[f"ours, {RULE}, from 2 items"] > f1[f"components, {RULE}"]


def time_pool(n: int) -> bool:
    """Group a large pool of simulated classes and noise; whether it is quick enough."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 60, n // 62)
    labels = np.concatenate(
        [np.repeat(np.arange(len(sizes)), sizes), len(sizes) + np.arange(n - sizes.sum())]
    )
    centres = rng.normal(size=(len(np.unique(labels)), 128)).astype(np.float32)
    vectors = centres[labels] + 0.7 * rng.normal(size=(n, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    split_groups(vectors[:2000], group_vectors(vectors[:2000], 0.45), 0.45, STRICT, 2)  # compiled once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = perf_counter(), process_time()
    found = split_groups(vectors, group_vectors(vectors, 0.45), 0.45, STRICT, 2)
    wall, cpu = perf_counter() - start, process_time() - cpu
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    is_class = labels < len(sizes)
    print(
        f"\n{n} x 128: {wall:.1f} s on the clock, {cpu:.1f} s of CPU, {more:.0f} MiB more; "
        f"{len(found.sizes)} groups for {len(sizes)} classes, {np.mean(found.of_row[is_class] >= 0):.3f} of "
        f"their items in a group, {np.mean(found.of_row[~is_class] >= 0):.4f} of the others."
    )
    return cpu <= 2 * LIMIT


def main() -> int:
    """Prints the tables; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--pool", type=int, default=100_000)
    given = parser.parse_args()
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "clinc150" / "clinc150_minilm.npz") as archive:
        clinc = EmbeddingSet.from_arrays(archive["embeddings"].astype(np.float32), archive["labels"])
    outside = clinc.labels == "oos"
    seeds = range(given.draws)
    good = [
        compare(
            "CLINC150", [draw_pool(clinc.subset(~outside), clinc.subset(outside), seed) for seed in seeds]
        )
    ]
    if given.grocery:
        parts = [embed_grocery(part) for part in ("train", "val", "test")]
        photos = concatenate(
            [
                EmbeddingSet(part.vectors, part.labels, np.char.add(name, part.ids))
                for name, part in zip("abc", parts, strict=True)
            ]
        )
        good.append(compare("Grocery", [draw_pool(photos, None, seed) for seed in seeds]))
    for run in given.runs:
        name, _, path = run.partition("=")
        items = read_embeddings(Path(path) / "embeddings" / "test.npz")
        good.append(compare(name, [draw_pool(items, None, seed) for seed in seeds]))
    good.append(time_pool(given.pool))
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
