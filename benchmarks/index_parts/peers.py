"""Other libraries on the same vectors, where they are installed: hnswlib, usearch, qdrant's edge engine."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import faiss
import numpy as np

from benchmarks.index_parts.bench import Bench, build_bare_searches, open_gallery
from benchmarks.index_parts.measure import K, Search, compute_recall, measure_rates, tune
from benchmarks.index_parts.ours import build_filter_cases
from common.array_types import Int64s, UnitVectors


def measure_peers(bench: Bench, _: str) -> dict[str, Any]:
    """hnswlib and usearch with the same links and breadth, at recall 0.95, beside the bare graph."""
    out: dict[str, Any] = {}
    searches: dict[str, Search] = {}
    makes: dict[str, Callable[[int], Search]] = {"bare": build_bare_searches(bench.graph)}
    out["bare"] = {"build s": round(bench.graph_seconds, 1)}
    for name, make in (("hnswlib", _build_hnswlib), ("usearch", _build_usearch)):
        try:
            makes[name], seconds = make(bench)
            out[name] = {"build s": round(seconds, 1)}
        except ImportError as error:
            print(f"{name} cannot be measured: {error}")
    faiss.omp_set_num_threads(1)
    for name, at in makes.items():
        effort, searches[name] = tune(at, bench.queries, bench.neighbours)
        out[name] |= {"ef": effort, "recall": compute_recall(searches[name], bench.queries, bench.neighbours)}
    for name, speeds in measure_rates(searches, bench.queries, 3).items():
        out[name] |= speeds
    return out


def _build_hnswlib(bench: Bench) -> tuple[Callable[[int], Search], float]:
    hnswlib: Any = importlib.import_module("hnswlib")
    graph = hnswlib.Index("ip", bench.rows.shape[1])

    def build() -> None:
        graph.init_index(len(bench.rows), M=bench.m, ef_construction=bench.breadth)
        graph.add_items(bench.rows, num_threads=2)

    seconds = _build_or_load(bench, "hnswlib", build, graph.save_index, graph.load_index)
    graph.set_num_threads(1)

    def at(effort: int) -> Search:
        graph.set_ef(effort)
        return lambda queries: graph.knn_query(queries, K)[0].astype(np.int64)

    return at, seconds


def _build_usearch(bench: Bench) -> tuple[Callable[[int], Search], float]:
    usearch: Any = importlib.import_module("usearch.index")
    net = usearch.Index(
        ndim=bench.rows.shape[1],
        metric="ip",
        connectivity=bench.m,
        expansion_add=bench.breadth,
        dtype="f32",
    )

    def build() -> None:
        net.add(np.arange(len(bench.rows)), bench.rows, threads=2)

    seconds = _build_or_load(bench, "usearch", build, net.save, net.load)

    def at(effort: int) -> Search:
        net.expansion_search = effort

        def search(queries: UnitVectors) -> Int64s:
            keys = net.search(queries, K, threads=1).keys
            return np.asarray(keys).reshape(len(queries), -1).astype(np.int64)

        return search

    return at, seconds


def _build_or_load(
    bench: Bench,
    name: str,
    build: Callable[[], None],
    save: Callable[[str], Any],
    load: Callable[[str], Any],
) -> float:
    """Build and save, or load what an earlier run saved; the processor seconds of building."""
    file = bench.folder / f"{name}-{len(bench.rows)}-{bench.m}-{bench.breadth}.{name}"
    took = file.with_suffix(".json")
    if file.exists():
        load(str(file))
        return float(json.loads(took.read_text()))
    start = process_time()
    build()
    seconds = process_time() - start
    save(str(file))
    took.write_text(json.dumps(seconds))
    return seconds


def measure_edge(bench: Bench, kind: str) -> dict[str, Any]:
    """Filtered searches in turn with qdrant's edge engine: indexed fields, no payload returned, no graph."""
    try:
        qdrant: Any = importlib.import_module("qdrant_edge")
    except ImportError as error:
        return {"qdrant edge cannot be measured": str(error)}
    faiss.omp_set_num_threads(1)
    gallery, _ = open_gallery(bench.write_bundle(kind)[0])
    main = gallery.view.main
    assert main is not None
    shard = _open_shard(qdrant, bench, main.items, bench.folder / f"qdrant-{len(bench.rows)}")
    out: dict[str, Any] = {}
    for name, cases in build_filter_cases(main.items).items():
        if name in ("range 100 %", "range 50 %"):
            continue  # with no graph it compares with all of them
        spent: dict[str, list[float]] = {"ours": [], "qdrant": [], "qdrant, request ready": []}
        trials = [(condition, query) for (condition, _), query in zip(cases, bench.queries, strict=False)]
        for condition, query in trials * 2:  # the first time brings the rows into memory
            start = perf_counter()
            ours = gallery.search(query, K, filter=condition)[0]
            spent["ours"].append(perf_counter() - start)
            start = perf_counter()
            request = qdrant.QueryRequest(
                limit=K,
                query=qdrant.Query.Nearest(query.tolist()),
                filter=_build_edge_filter(qdrant, condition),
                with_payload=False,
            )
            ready = perf_counter()
            theirs = shard.query(request)
            end = perf_counter()
            spent["qdrant"].append(end - start)
            spent["qdrant, request ready"].append(end - ready)
            assert {int(hit.id) for hit in ours} == {hit.id for hit in theirs}, "one of the two is wrong"
        median = {
            name: round(float(np.median(times[len(trials) :])) * 1e3, 4) for name, times in spent.items()
        }
        out[name] = {**median, "times qdrant": round(median["ours"] / median["qdrant"], 2)}
    return out


def _open_shard(qdrant: Any, bench: Bench, items: Any, folder: Path) -> Any:
    if folder.exists():
        return qdrant.EdgeShard.load(str(folder))
    folder.mkdir()
    vectors = qdrant.EdgeVectorParams(size=bench.rows.shape[1], distance=qdrant.Distance.Dot)
    shard = qdrant.EdgeShard.create(str(folder), qdrant.EdgeConfig(vectors=vectors, max_search_threads=1))
    meta = items.metadata.column("meta").to_pylist()
    labels = [items.classes[code] for code in items.label_codes.tolist()]
    for start in range(0, len(bench.rows), 5_000):
        points = [
            qdrant.Point(row, bench.rows[row].tolist(), {"label": labels[row], "meta": meta[row]})
            for row in range(start, min(start + 5_000, len(bench.rows)))
        ]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
    shard.update(qdrant.UpdateOperation.create_field_index("label", qdrant.PayloadSchemaType.Keyword))
    shard.update(qdrant.UpdateOperation.create_field_index("meta", qdrant.PayloadSchemaType.Integer))
    shard.flush()
    return shard


def _build_edge_filter(qdrant: Any, condition: dict[str, Any]) -> Any:
    if "label" in condition:
        field = qdrant.FieldCondition("label", match=qdrant.MatchValue(condition["label"]))
    else:
        bounds = condition["meta"]
        field = qdrant.FieldCondition("meta", range=qdrant.RangeFloat(gte=bounds["$gte"], lt=bounds["$lt"]))
    return qdrant.Filter(must=[field])
