"""Our search beside the bare engine and two other libraries, in one process, on the same vectors.

    python -P benchmarks/index.py                                  # 100,000 x 128, some minutes on two cores
    python -P benchmarks/index.py --rows 1000000 --keep /big/disk  # the long form
    python -P benchmarks/index.py --parts search peers             # some parts of it

Data: unit rows around rows/20 centres, noise 1.2/sqrt(d), queries of the same law. Every search is
single-threaded and tuned to recall@10 >= 0.95 on its own first 300 queries; all builds use two threads.
Ours is ``search`` with re-scoring and the accept rule at a threshold; rounds of ours and of bare FAISS take
turns, and the best of each counts. With ``--keep`` the bare graph and the bundles stay for the next part: the
bundle then takes the bare graph as its own before the audit, and its build time is the graph's plus the rest.
Build times are processor seconds, which a busy machine hardly changes.
hnswlib and usearch are measured where they are installed.
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
from time import perf_counter, process_time
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.config import IndexConfig
from decision.embeddings import EmbeddingSet
from decision.hashes import vectors_model_hash
from index import engines
from index.bundle import write_bundle
from index.engines import HnswEngine
from index.gallery import Gallery
from index.view import View

EFFORTS = (16, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1_024)
K = 10
PARTS = ("search", "compressed", "filters", "deletes", "duplicates", "peers")
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


def rate(ask: Ask, queries: Rows, batch: int, seconds: float = 0.7) -> float:
    """Queries per second in batches."""
    asked, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds:
        first = asked % (len(queries) - batch + 1)
        ask(queries[first : first + batch])
        asked += batch
    return asked / spent


def rates(asks: dict[str, Ask], queries: Rows, rounds: int = 6) -> dict[str, dict[str, float]]:
    """Queries per second of several searches that take turns, in batches of 64 and one by one."""
    out: dict[str, dict[str, float]] = {name: {} for name in asks}
    for batch in (64, 1):
        for _ in range(rounds):
            for name, ask in asks.items():
                now = rate(ask, queries, batch)
                out[name][f"q/s in {batch}"] = round(max(now, out[name].get(f"q/s in {batch}", 0.0)))
    return out


def recall(ask: Ask, queries: Rows, truth: NDArray[np.int64]) -> float:
    """Share of the true ten that are found."""
    found = ask(queries)
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return round(float(np.mean([len(set(a) & set(b)) / K for a, b in pairs])), 4)


def tuned(make: Callable[[int], Ask], queries: Rows, truth: NDArray[np.int64]) -> tuple[int, Ask]:
    """The smallest effort that reaches recall 0.95 on the first 300 queries, or the largest tried."""
    for effort in EFFORTS:
        ask = make(effort)
        if recall(ask, queries[:300], truth[:300]) >= 0.95:
            break
    return effort, ask


def resident() -> dict[str, int]:
    """Anonymous and file-backed resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(values[f"Rss{name}"].split()[0]) // 1024 for name in ("Anon", "File")}


def gallery_asks(gallery: Gallery, dead: NDArray[np.bool_] | None = None) -> Callable[[int], Ask]:
    """Our search, decision included, and how to set its effort; ``dead`` rows are deleted before."""
    main = gallery._view.main
    assert main is not None
    if dead is not None:
        gallery._shown = View(main, main.alive(~dead))

    def at(effort: int) -> Ask:
        main.engine.parameters["ef_search"] = effort

        def ask(queries: Rows) -> NDArray[np.int64]:
            found = gallery.search(queries, K, min_score=-1.0)
            return np.array([[int(hit.id) for hit in hits] for hits in found])

        return ask

    return at


def bare_asks(index: Any) -> Callable[[int], Ask]:
    """FAISS itself on one of its own indexes."""

    def at(effort: int) -> Ask:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return lambda queries: index.search(queries, K, params=parameters)[1]

    return at


class Bench:
    """One size of the data, with what was built for it."""

    def __init__(self, rows: int, dim: int, m: int, breadth: int, folder: Path) -> None:
        self.folder, self.m, self.breadth = folder, m, breadth
        self.rows, self.queries, self.label = clustered(rows, dim, 1_000)
        faiss.omp_set_num_threads(2)
        kept = folder / f"truth-{rows}.npy"
        if not kept.exists():
            np.save(kept, faiss.knn(self.queries, self.rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1])
        self.truth = np.load(kept)
        self.graph, self.graph_seconds = self._graph()

    def _graph(self) -> tuple[Any, float]:
        """The bare graph, built as FAISS is meant to be used: everything in one call."""
        file = self.folder / f"bare-{len(self.rows)}-{self.m}-{self.breadth}.faiss"
        took = file.with_suffix(".json")
        if not file.exists():
            graph = faiss.IndexHNSWFlat(self.rows.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = self.breadth
            start = process_time()
            graph.add(self.rows)
            took.write_text(json.dumps(process_time() - start))
            faiss.write_index(graph, str(file))
        return faiss.read_index(str(file)), float(json.loads(took.read_text()))

    def bundle(self, kind: str, rows: Rows | None = None, ours: bool = False) -> tuple[Path, float]:
        """A bundle, and the seconds from arrays to files on disk; ``ours`` builds the graph anew."""
        vectors = self.rows if rows is None else rows
        path = (
            self.folder / f"{kind}-{len(vectors)}-{self.m}-{self.breadth}{'' if rows is None else '-other'}"
        )
        took = path.with_suffix(".json")
        if path.exists() and not ours:
            return path, float(json.loads(took.read_text()))
        n = len(vectors)
        rng = np.random.default_rng(1)
        labels = rng.integers(0, max(1, n // 20), n).astype(np.str_)
        items = EmbeddingSet(
            vectors, labels, np.arange(n).astype(np.str_), {"meta": rng.integers(0, 10_000, n)}
        )
        settings = {"kind": kind, "m": self.m, "ef_construction": self.breadth}
        taken = kind != "flat" and rows is None and not ours
        build = HnswEngine.build
        if taken:
            engines.HnswEngine.build = classmethod(self._taken)  # type: ignore[assignment,method-assign]
        faiss.omp_set_num_threads(2)
        start = process_time()
        write_bundle(
            path,
            name="benchmark",
            items=items,
            model_hash=vectors_model_hash("benchmark", vectors.shape[1]),
            encoder_folder=None,
            index_config=IndexConfig.model_validate(settings),
            report=None,
            operating_points=[],
            active={},
            reasons=[],
            config_yaml="",
        )
        seconds = process_time() - start + (self.graph_seconds if taken else 0.0)
        engines.HnswEngine.build = build  # type: ignore[method-assign]
        took.write_text(json.dumps(seconds))
        return path, seconds

    def _taken(
        self, cls: type[HnswEngine], vectors: Rows, rows: Any, config: IndexConfig, kind: Any, track: Any
    ) -> HnswEngine:
        """The bare graph as an engine, its rows brought to 8 bits for ``hnsw_sq8``."""
        index = self.graph
        if kind == "hnsw_sq8":
            quantizer = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexHNSWSQ(vectors.shape[1], quantizer, self.m, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors[:100_000])
            faiss.downcast_index(index.storage).add(vectors)
            index.hnsw, index.ntotal = self.graph.hnsw, len(vectors)
        parameters = {"m": config.m, "ef_construction": config.ef_construction, "ef_search": 128}
        return cls(faiss.clone_index(index), kind, parameters)


def opened(path: Path) -> tuple[Gallery, dict[str, Any]]:
    """A gallery, how long it took to open, and what it says of itself."""
    start = perf_counter()
    gallery = Gallery.open(path)
    hashed = perf_counter() - start
    start = perf_counter()
    gallery._bundle.generation()
    mapped = perf_counter() - start
    stats = {name: gallery.stats()[name] for name in ("missed", "linked", "side_list", "audited")}
    size = round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20)
    return gallery, {
        "open s, files hashed before": round(mapped, 3),
        "open s": round(hashed, 2),
        **stats,
        "files MB": size,
    }


def search(bench: Bench, kind: str) -> dict[str, Any]:
    """A kind beside the bare graph, each at recall 0.95."""
    path, took = bench.bundle(kind, ours=kind == "hnsw" and len(bench.rows) <= 200_000)
    faiss.omp_set_num_threads(1)
    before = resident()
    gallery, out = opened(path)
    at = gallery_asks(gallery)
    effort, ours = tuned(at, bench.queries, bench.truth) if kind != "flat" else (0, at(0))
    bare_effort, bare = tuned(bare_asks(bench.graph), bench.queries, bench.truth)
    found = {
        "build s": round(took, 1),
        "bare build s": round(bench.graph_seconds, 1),
        "build ratio": round(bench.graph_seconds / took, 3),
        "ef and recall, ours": [effort, recall(ours, bench.queries, bench.truth)],
        "ef and recall, bare": [bare_effort, recall(bare, bench.queries, bench.truth)],
    }
    after = resident()
    both = rates({"ours": ours, "bare": bare}, bench.queries)
    for name in list(both["ours"]):
        both["ours"][f"ratio, {name}"] = round(both["ours"][name] / both["bare"][name], 3)
    memory = {f"Rss{name} MB": after[name] - before[name] for name in after}
    return {**found, **out, **both, **memory, "vectors MB": bench.rows.nbytes // 2**20}


def compressed(bench: Bench, _: str) -> dict[str, Any]:
    """Cells of product-quantised rows (IVF-PQ, fast scan) whose best 200 are re-scored, at recall 0.95."""
    faiss.omp_set_num_threads(2)
    cells = int(4 * len(bench.rows) ** 0.5)
    index = faiss.index_factory(bench.rows.shape[1], f"IVF{cells},PQ64x4fsr", faiss.METRIC_INNER_PRODUCT)
    start = process_time()
    index.train(bench.rows[: 40 * cells])
    index.add(bench.rows)
    out: dict[str, Any] = {"build s": round(process_time() - start, 1)}
    out["bytes a row"] = round(len(faiss.serialize_index(index)) / len(bench.rows))
    faiss.omp_set_num_threads(1)

    def at(effort: int) -> Ask:
        parameters = faiss.SearchParametersIVF(nprobe=min(effort, cells))

        def ask(queries: Rows) -> NDArray[np.int64]:
            found = index.search(queries, 200, params=parameters)[1]
            scores = np.einsum("qfd,qd->qf", bench.rows[found], queries)
            return np.take_along_axis(found, np.argsort(-scores, axis=1)[:, :K], axis=1)

        return ask

    out["nprobe"], ask = tuned(at, bench.queries, bench.truth)
    out["recall"] = recall(ask, bench.queries, bench.truth)
    return out | rates({"it": ask}, bench.queries, 3)["it"]


def filters(bench: Bench, kind: str) -> dict[str, Any]:
    """Milliseconds a query, how full answers are and how right, under filters of falling share."""
    faiss.omp_set_num_threads(1)
    gallery, _ = opened(bench.bundle(kind)[0])
    gallery_asks(gallery)(128)
    rng = np.random.default_rng(2)
    out: dict[str, Any] = {}
    main = gallery._view.main
    assert main is not None
    meta = main.items.metadata.column("meta").to_numpy()
    labels = np.array(main.items.classes)[main.items.label_codes]
    cases = {"label": None, **{f"range {share:g} %": int(share * 100) for share in (50, 10, 1, 0.1)}}
    for name, width in cases.items():
        spent, full, right, asked = [], 0, 0.0, 100
        for query in bench.queries[:asked]:
            if width is None:
                label = str(rng.integers(0, len(main.items.classes)))
                condition: dict[str, Any] = {"label": label}
                chosen = np.flatnonzero(labels == label)
            else:
                low = int(rng.integers(0, 10_000 - width + 1))
                condition = {"meta": {"$gte": low, "$lt": low + width}}
                chosen = np.flatnonzero((meta >= low) & (meta < low + width))
            start = perf_counter()
            hits = gallery.search(query, K, filter=condition)[0]
            spent.append(perf_counter() - start)
            best = chosen[np.argsort(-(bench.rows[chosen] @ query), kind="stable")[:K]]
            full += len(hits) == len(best)
            right += len({int(hit.id) for hit in hits} & set(best.tolist())) / max(1, len(best))
        median = round(float(np.median(spent)) * 1e3, 3)
        out[name] = {"median ms": median, "full": full / asked, "recall": round(right / asked, 4)}
    return out


def deletes(bench: Bench, kind: str) -> dict[str, Any]:
    """A tenth of the rows deleted and not yet rebuilt away."""
    faiss.omp_set_num_threads(1)
    dead = np.random.default_rng(3).random(len(bench.rows)) < 0.1
    living = np.flatnonzero(~dead)
    faiss.omp_set_num_threads(2)
    near = faiss.knn(bench.queries, bench.rows[living], K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    faiss.omp_set_num_threads(1)
    whole, less = (opened(bench.bundle(kind)[0])[0] for _ in range(2))
    effort, all_there = tuned(gallery_asks(whole), bench.queries, bench.truth)
    ask = gallery_asks(less, dead)(effort)
    out: dict[str, Any] = {"ef": effort, "recall": recall(ask, bench.queries, living[near])}
    return out | rates({"a tenth deleted": ask, "none deleted": all_there}, bench.queries, 3)


def duplicates(bench: Bench, kind: str) -> dict[str, Any]:
    """Every third row is a copy of one of a hundred vectors: do all others still find themselves?"""
    rng = np.random.default_rng(4)
    rows = bench.rows[: min(len(bench.rows), 100_000)].copy()
    copies = rng.random(len(rows)) < 1 / 3
    rows[copies] = rows[rng.integers(0, 100, copies.sum())]
    graph = faiss.IndexHNSWFlat(rows.shape[1], bench.m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = bench.breadth
    faiss.omp_set_num_threads(2)
    start = process_time()
    graph.add(rows)
    bare_took = process_time() - start
    path, took = bench.bundle(kind, rows)
    gallery, out = opened(path)
    chosen = rng.permutation(np.flatnonzero(~copies))[:5_000]
    ours = gallery_asks(gallery)(128)
    kept = faiss.SearchParametersHNSW(efSearch=128)
    for name, top in (
        ("ours", ours(rows[chosen])[:, 0]),
        ("bare", graph.search(rows[chosen], 1, params=kept)[1][:, 0]),
    ):
        near = np.einsum("ij,ij->i", rows[top], rows[chosen])
        out[f"of {len(chosen):,} other rows not found, {name}"] = int((near < 1 - 1e-6).sum())
    return out | {"build s": round(took, 1), "bare build s": round(bare_took, 1)}


def peers(bench: Bench, _: str) -> dict[str, Any]:
    """hnswlib and usearch with the same links and breadth, at recall 0.95, beside the bare graph."""
    out: dict[str, Any] = {}
    asks: dict[str, Ask] = {}
    makes: dict[str, Callable[[int], Ask]] = {"bare": bare_asks(bench.graph)}
    dim, n = bench.rows.shape[1], len(bench.rows)
    try:
        hnswlib: Any = importlib.import_module("hnswlib")
        graph = hnswlib.Index("ip", dim)
        start = process_time()
        graph.init_index(n, M=bench.m, ef_construction=bench.breadth)
        graph.add_items(bench.rows, num_threads=2)
        out["hnswlib"] = {"build s": round(process_time() - start, 1)}
        graph.set_num_threads(1)

        def at_hnswlib(effort: int) -> Ask:
            graph.set_ef(effort)
            return lambda queries: graph.knn_query(queries, K)[0].astype(np.int64)

        makes["hnswlib"] = at_hnswlib
    except ImportError as error:
        print(f"hnswlib cannot be measured: {error}")
    try:
        usearch: Any = importlib.import_module("usearch.index")
        net = usearch.Index(
            ndim=dim, metric="ip", connectivity=bench.m, expansion_add=bench.breadth, dtype="f32"
        )
        start = process_time()
        net.add(np.arange(n), bench.rows, threads=2)
        out["usearch"] = {"build s": round(process_time() - start, 1)}

        def at_usearch(effort: int) -> Ask:
            net.expansion_search = effort
            return lambda queries: (
                net.search(queries, K, threads=1).keys.reshape(len(queries), -1).astype(np.int64)
            )

        makes["usearch"] = at_usearch
    except ImportError as error:
        print(f"usearch cannot be measured: {error}")
    faiss.omp_set_num_threads(1)
    for name, make in makes.items():
        effort, asks[name] = tuned(make, bench.queries, bench.truth)
        found = {"ef": effort, "recall": recall(asks[name], bench.queries, bench.truth)}
        out[name] = {**out.get(name, {"build s": round(bench.graph_seconds, 1)}), **found}
    for name, speeds in rates(asks, bench.queries, 3).items():
        out[name] |= speeds
    return out


def main() -> None:
    """Read the options, measure, print; ``--out`` keeps the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--m", type=int, default=IndexConfig().m)
    parser.add_argument("--ef-construction", type=int, default=IndexConfig().ef_construction)
    parser.add_argument("--kinds", nargs="+", default=["hnsw"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="a folder where graphs and bundles stay")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for rows in given.rows:
            bench = Bench(rows, given.dim, given.m, given.ef_construction, folder)
            for part in given.parts:
                for kind in given.kinds if part not in ("compressed", "peers") else ["-"]:
                    figures = globals()[part](bench, kind)
                    results.append(
                        {"rows": rows, "part": part, "kind": kind, "cores": os.cpu_count(), **figures}
                    )
                    print(json.dumps(results[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
