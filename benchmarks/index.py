"""Our search beside the bare engine and two other libraries, in one process, on the same vectors.

    python -P benchmarks/index.py                        # 100,000 x 128, a few minutes on two cores
    python -P benchmarks/index.py --rows 1000000         # the long form
    python -P benchmarks/index.py --growth 10000 100000  # how speed and memory grow

Data: unit rows around rows/20 centres, noise 1.2/sqrt(d), queries of the same law. Every search is
single-threaded and tuned to recall@10 >= 0.95 on its own first 300 queries; all builds use two threads.
hnswlib and usearch are measured where they are installed. Ratios are to bare FAISS.
-P keeps this folder, in which a file is called index, out of the way of the package of that name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.config import IndexConfig
from decision.embeddings import EmbeddingSet
from decision.hashes import vectors_model_hash
from index.bundle import write_bundle
from index.gallery import Gallery

LINKS, BREADTH = 16, 100
EFFORTS = (16, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
K = 10
Rows = NDArray[np.float32]
Ask = Callable[[Rows], NDArray[np.int64]]


def clustered(n: int, dim: int, queries: int, seed: int = 0) -> tuple[Rows, Rows, NDArray[np.int64]]:
    """Unit rows, queries of the same law, and each row's centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 20), dim)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    label = rng.integers(0, len(centres), n + queries)
    rows = np.empty((n + queries, dim), dtype=np.float32)
    for start in range(0, n + queries, 65_536):
        part = slice(start, start + 65_536)
        noise = rng.normal(size=(len(label[part]), dim), scale=1.2 / dim**0.5).astype(np.float32)
        block = centres[label[part]] + noise
        rows[part] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return rows[:n], rows[n:], label[:n]


def rate(ask: Ask, queries: Rows, batch: int, seconds: float = 2.0) -> float:
    """Queries per second in batches, the best of three rounds."""
    best = 0.0
    for _ in range(3):
        asked, start = 0, perf_counter()
        while (spent := perf_counter() - start) < seconds / 3:
            first = asked % (len(queries) - batch + 1)
            ask(queries[first : first + batch])
            asked += batch
        best = max(best, asked / spent)
    return best


def recall(ask: Ask, queries: Rows, truth: NDArray[np.int64]) -> float:
    """Share of the true ten that are found."""
    found = ask(queries)
    return float(
        np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )


def tuned(make: Callable[[int], Ask], queries: Rows, truth: NDArray[np.int64]) -> tuple[int, Ask]:
    """The smallest effort that reaches recall 0.95 on the first 300 queries."""
    for effort in EFFORTS:
        ask = make(effort)
        if recall(ask, queries[:300], truth[:300]) >= 0.95:
            break
    return effort, ask


def resident() -> tuple[int, int]:
    """Anonymous and file-backed resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return int(values["RssAnon"].split()[0]) // 1024, int(values["RssFile"].split()[0]) // 1024


def gallery_asks(path: Path) -> tuple[Gallery, Callable[[int], Ask]]:
    """Our search over a bundle, and how to set its effort."""
    gallery = Gallery.open(path)

    def at(effort: int) -> Ask:
        gallery._view.main.engine.parameters["ef_search"] = effort

        def ask(queries: Rows) -> NDArray[np.int64]:
            found = gallery.search(queries, K)
            return np.array([[int(hit.id) for hit in hits] for hits in found])

        return ask

    return gallery, at


def bare_asks(index: Any) -> Callable[[int], Ask]:
    """FAISS itself on one of its own indexes."""

    def at(effort: int) -> Ask:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return lambda queries: index.search(queries, K, params=parameters)[1]

    return at


def peers(rows: Rows) -> dict[str, tuple[float, Callable[[int], Ask]]]:
    """Build time and search of the libraries that are installed."""
    found: dict[str, tuple[float, Callable[[int], Ask]]] = {}
    dim = rows.shape[1]
    try:
        hnswlib: Any = importlib.import_module("hnswlib")
        graph = hnswlib.Index("ip", dim)
        start = perf_counter()
        graph.init_index(len(rows), M=LINKS, ef_construction=BREADTH)
        graph.add_items(rows, num_threads=2)
        took = perf_counter() - start
        graph.set_num_threads(1)

        def at_hnswlib(effort: int) -> Ask:
            graph.set_ef(effort)
            return lambda queries: graph.knn_query(queries, K)[0].astype(np.int64)

        found["hnswlib"] = took, at_hnswlib
    except ImportError:
        print("hnswlib is not installed")
    try:
        usearch: Any = importlib.import_module("usearch.index")
        net = usearch.Index(ndim=dim, metric="ip", dtype="f32", connectivity=LINKS, expansion_add=BREADTH)
        start = perf_counter()
        net.add(np.arange(len(rows)), rows, threads=2)
        took = perf_counter() - start

        def at_usearch(effort: int) -> Ask:
            net.expansion_search = effort
            return lambda queries: (
                net.search(queries, K, threads=1).keys.reshape(len(queries), -1).astype(np.int64)
            )

        found["usearch"] = took, at_usearch
    except ImportError:
        print("usearch is not installed")
    return found


def bundle_of(folder: Path, rows: Rows, label: NDArray[np.int64], kind: str) -> tuple[Path, float]:
    """A bundle and the seconds from arrays to files on disk."""
    rng = np.random.default_rng(1)
    n = len(rows)
    items = EmbeddingSet(
        rows,
        rng.integers(0, max(1, n // 20), n).astype(np.str_),
        np.arange(n).astype(np.str_),
        {"meta": rng.integers(0, 10_000, n)},
    )
    config = IndexConfig.model_validate({"kind": kind, "m": LINKS, "ef_construction": BREADTH})
    start = perf_counter()
    write_bundle(
        folder / kind,
        name="benchmark",
        items=items,
        model_hash=vectors_model_hash("benchmark", rows.shape[1]),
        encoder_folder=None,
        index_config=config,
        report=None,
        operating_points=[],
        active={},
        reasons=[],
        config_yaml="",
    )
    return folder / kind, perf_counter() - start


def filters(gallery: Gallery, rows: Rows, queries: Rows) -> dict[str, Any]:
    """Milliseconds a query, how full answers are and how right, under filters of falling share."""
    rng = np.random.default_rng(2)
    out: dict[str, Any] = {}
    items = gallery._view.main.items
    meta = items.metadata.column("meta").to_numpy()
    cases = {"label": None, **{f"range {share:g} %": int(share * 100) for share in (50, 10, 1, 0.1)}}
    for name, width in cases.items():
        spent, full, right, asked = 0.0, 0, 0.0, 200
        for query in queries[:asked]:
            if width is None:
                label = str(rng.integers(0, max(1, len(rows) // 20)))
                condition: dict[str, Any] = {"label": label}
                chosen = (
                    np.flatnonzero(items.label_codes == items.classes.index(label))
                    if label in items.classes
                    else np.empty(0, int)
                )
            else:
                low = int(rng.integers(0, 10_000 - width + 1))
                condition = {"meta": {"$gte": low, "$lt": low + width}}
                chosen = np.flatnonzero((meta >= low) & (meta < low + width))
            if not spent:
                gallery.search(query, K, filter=condition)
            start = perf_counter()
            hits = gallery.search(query, K, filter=condition)[0]
            spent += perf_counter() - start
            best = chosen[np.argsort(-(rows[chosen] @ query), kind="stable")[:K]]
            full += len(hits) == len(best)
            right += len({int(hit.id) for hit in hits} & set(best.tolist())) / max(1, len(best))
        out[name] = {
            "ms": round(spent / asked * 1e3, 3),
            "full": full / asked,
            "recall": round(right / asked, 4),
        }
        print(f"  filter {name}: {out[name]}", flush=True)
    return out


def measure(n: int, dim: int, kinds: list[str], with_peers: bool) -> dict[str, Any]:
    """Everything at one size."""
    result: dict[str, Any] = {"rows": n, "dim": dim, "cores": os.cpu_count()}
    rows, queries, label = clustered(n, dim, 1_000)
    faiss.omp_set_num_threads(2)
    truth = faiss.knn(queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BREADTH
    start = perf_counter()
    index.add(rows)
    result["bare build s"] = round(perf_counter() - start, 2)
    print(f"{n:,} x {dim}: bare FAISS HNSW built in {result['bare build s']} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            faiss.omp_set_num_threads(2)
            path, took = bundle_of(Path(folder), rows, label, kind)
            faiss.omp_set_num_threads(1)
            before = resident()
            start = perf_counter()
            gallery, at = gallery_asks(path)
            opened = perf_counter() - start
            start = perf_counter()
            generation = gallery._bundle.generation()
            mapped = perf_counter() - start
            del generation
            effort, ask = tuned(at, queries, truth) if kind != "flat" else (0, at(0))
            ours: dict[str, Any] = {
                "build s": round(took, 2),
                "ef": effort,
                "side list": gallery.stats()["side_list"],
            }
            ours |= {"open with hashing s": round(opened, 2), "open by map s": round(mapped, 3)}
            ours["recall"] = round(recall(ask, queries, truth), 4)
            if kind == "hnsw":
                bare_effort, bare = tuned(bare_asks(index), queries, truth)
                result["bare"] = {"ef": bare_effort, "recall": round(recall(bare, queries, truth), 4)}
                result["build ratio"] = round(result["bare build s"] / took, 3)
            for batch in (64, 1):
                ours[f"q/s in {batch}"] = round(rate(ask, queries, batch))
                if kind == "hnsw":
                    # alternate with the bare engine, so that both see the same neighbours on the machine
                    ours[f"q/s in {batch}"] = max(ours[f"q/s in {batch}"], round(rate(ask, queries, batch)))
                    result["bare"][f"q/s in {batch}"] = round(
                        max(rate(bare, queries, batch), rate(bare, queries, batch))
                    )
                    result[f"ratio in {batch}"] = round(
                        ours[f"q/s in {batch}"] / result["bare"][f"q/s in {batch}"], 3
                    )
            after = resident()
            ours["memory MB, own and mapped"] = [after[0] - before[0], after[1] - before[1]]
            ours["files MB"] = round(
                sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20
            )
            print(f"  {kind}: {ours}", flush=True)
            if kind == "hnsw":
                ratios = {name: value for name, value in result.items() if "ratio" in name}
                print(f"  bare: {result['bare']}, {ratios}", flush=True)
                ours["filters"] = filters(gallery, rows, queries)
            result[kind] = ours
            gallery.close()
    if with_peers:
        for name, (took, make) in peers(rows).items():
            effort, ask = tuned(make, queries, truth)
            result[name] = {
                "build s": round(took, 2),
                "ef": effort,
                "recall": round(recall(ask, queries, truth), 4),
            }
            result[name] |= {f"q/s in {batch}": round(rate(ask, queries, batch)) for batch in (64, 1)}
            print(f"  {name}: {result[name]}", flush=True)
    return result


def main() -> None:
    """Read the options, measure, print; ``--out`` keeps the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", default=["flat", "hnsw", "hnsw_sq8"])
    parser.add_argument("--growth", type=int, nargs="*", help="further sizes, without peers")
    parser.add_argument("--alone", action="store_true", help="leave the other libraries out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = [measure(n, given.dim, given.kinds, False) for n in given.growth or []]
    results.append(measure(given.rows, given.dim, given.kinds, not given.alone))
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
