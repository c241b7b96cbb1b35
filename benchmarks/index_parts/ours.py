"""Measurements of our index: beside the bare graph, under filters, after deletions, with many copies."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter, process_time
from typing import Any

import faiss
import numpy as np

from benchmarks.index_parts.bench import (
    Bench,
    build_bare_searches,
    build_gallery_search,
    build_gallery_searches,
    open_gallery,
)
from benchmarks.index_parts.measure import K, compute_recall, measure_rates, read_resident_memory, tune
from common.array_types import Int64s
from index.items.item_table import ItemTable

ASKED = 200  # filtered searches that are timed, each with a filter of its own


def measure_search(bench: Bench, kind: str) -> dict[str, Any]:
    """A kind beside the bare graph, each at recall 0.95."""
    path, took = bench.write_bundle(kind, ours=kind == "hnsw" and len(bench.rows) <= 200_000)
    faiss.omp_set_num_threads(1)
    before = read_resident_memory()
    gallery, out = open_gallery(path)
    at, efforts = build_gallery_searches(gallery)
    effort, ours = tune(at, bench.queries, bench.neighbours, efforts)
    bare_effort, bare = tune(build_bare_searches(bench.graph), bench.queries, bench.neighbours)
    figures = {
        "build s": round(took, 1),
        "bare build s": round(bench.graph_seconds, 1),
        "build ratio": round(bench.graph_seconds / took, 3),
        "effort and recall, ours": [effort, compute_recall(ours, bench.queries, bench.neighbours)],
        "ef and recall, bare": [bare_effort, compute_recall(bare, bench.queries, bench.neighbours)],
    }
    after = read_resident_memory()
    both = measure_rates({"ours": ours, "bare": bare}, bench.queries)
    for name in list(both["ours"]):
        both["ours"][f"ratio, {name}"] = round(both["ours"][name] / both["bare"][name], 3)
    memory = {f"Rss{name} MB": after[name] - before[name] for name in after}
    return {**figures, **out, **both, **memory, "vectors MB": bench.rows.nbytes // 2**20}


def measure_filters(bench: Bench, kind: str) -> dict[str, Any]:
    """Milliseconds a query, how full answers are and how right, under ever narrower filters."""
    faiss.omp_set_num_threads(1)
    gallery, _ = open_gallery(bench.write_bundle(kind)[0])
    main = gallery.view.main
    assert main is not None
    out: dict[str, Any] = {}
    for name, cases in build_filter_cases(main.items).items():
        spent, full, right = [], 0, 0.0
        trials = [(*case, query) for case, query in zip(cases, bench.queries, strict=False)]
        for condition, _, query in trials:  # brings the rows into memory
            gallery.search(query, K, filter=condition)
        for condition, chosen, query in trials:
            start = perf_counter()
            hits = gallery.search(query, K, filter=condition)[0]
            spent.append(perf_counter() - start)
            best = chosen[np.argsort(-(bench.rows[chosen] @ query), kind="stable")[:K]]
            full += len(hits) == len(best)
            right += len({int(hit.id) for hit in hits} & set(best.tolist())) / max(1, len(best))
        median = round(float(np.median(spent)) * 1e3, 4)
        out[name] = {"median ms": median, "full": full / len(trials), "recall": round(right / len(trials), 4)}
    return out


def build_filter_cases(
    items: ItemTable,
) -> dict[str, Iterator[tuple[dict[str, Any], Int64s]]]:
    """By name: conditions that hold for a fraction of the rows, each with these rows."""
    meta = items.metadata.column("meta").to_numpy()
    labels = np.array(items.classes)[items.label_codes]

    def by_label() -> Iterator[tuple[dict[str, Any], Int64s]]:
        rng = np.random.default_rng(2)
        for _ in range(ASKED):
            label = str(rng.integers(0, len(items.classes)))
            yield {"label": label}, np.flatnonzero(labels == label)

    def by_range(width: int) -> Iterator[tuple[dict[str, Any], Int64s]]:
        rng = np.random.default_rng(2)
        for _ in range(ASKED):
            low = int(rng.integers(0, 10_000 - width + 1))
            yield (
                {"meta": {"$gte": low, "$lt": low + width}},
                np.flatnonzero((meta >= low) & (meta < low + width)),
            )

    ranges = {f"range {percent:g} %": by_range(int(percent * 100)) for percent in (100, 50, 10, 1, 0.1)}
    return {"label": by_label(), **ranges}


def measure_deletes(bench: Bench, kind: str) -> dict[str, Any]:
    """A tenth of the rows deleted and not yet rebuilt away."""
    deleted = np.random.default_rng(3).random(len(bench.rows)) < 0.1
    remaining = np.flatnonzero(~deleted)
    faiss.omp_set_num_threads(2)
    near = faiss.knn(bench.queries, bench.rows[remaining], K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    faiss.omp_set_num_threads(1)
    complete, reduced = (open_gallery(bench.write_bundle(kind)[0])[0] for _ in range(2))
    at, efforts = build_gallery_searches(complete)
    effort, all_there = tune(at, bench.queries, bench.neighbours, efforts)
    build_gallery_searches(reduced)[0](effort)
    search = build_gallery_search(reduced, deleted)
    out: dict[str, Any] = {"effort": effort, "recall": compute_recall(search, bench.queries, remaining[near])}
    return out | measure_rates({"a tenth deleted": search, "none deleted": all_there}, bench.queries, 3)


def measure_duplicates(bench: Bench, kind: str) -> dict[str, Any]:
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
    path, took = bench.write_bundle(kind, rows)
    gallery, out = open_gallery(path)
    chosen = rng.permutation(np.flatnonzero(~copies))[:5_000]
    ours = build_gallery_search(gallery)
    kept = faiss.SearchParametersHNSW(efSearch=128)
    for name, top in (
        ("ours", ours(rows[chosen])[:, 0]),
        ("bare", graph.search(rows[chosen], 1, params=kept)[1][:, 0]),
    ):
        near = np.einsum("ij,ij->i", rows[top], rows[chosen])
        out[f"of {len(chosen):,} other rows not found, {name}"] = int((near < 1 - 1e-6).sum())
    return out | {"build s": round(took, 1), "bare build s": round(bare_took, 1)}
