"""One size of the data, with the bare graph and the bundles over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, cast
from unittest.mock import patch

import faiss
import numpy as np

from api_schemas.build_config import IndexConfig
from benchmarks.index_parts.measure import EFFORTS, K, Search
from common.array_types import Bools, Int64s, UnitVectors
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_model_name
from index import bundle
from index.engines.hnsw import HnswEngine, HnswSq8Engine, choose_beam
from index.gallery.gallery import Gallery
from index.search.gallery_view import GalleryView


def draw_clustered(n: int, dim: int, queries: int, seed: int = 0) -> tuple[UnitVectors, UnitVectors, Int64s]:
    """Unit rows, queries of the same distribution, and each row's centre."""
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


class Bench:
    """The data, the true neighbours of its queries, and what was built for it."""

    def __init__(self, rows: int, dim: int, m: int, breadth: int, folder: Path) -> None:
        self.folder, self.m, self.breadth = folder, m, breadth
        self.rows, self.queries, self.label = draw_clustered(rows, dim, 1_000)
        faiss.omp_set_num_threads(2)
        kept = folder / f"truth-{rows}.npy"
        if not kept.exists():
            np.save(kept, faiss.knn(self.queries, self.rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1])
        self.neighbours = np.load(kept)
        self.graph, self.graph_seconds = self._build_graph()

    def _build_graph(self) -> tuple[Any, float]:
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

    def write_bundle(
        self, kind: str, rows: UnitVectors | None = None, ours: bool = False
    ) -> tuple[Path, float]:
        """A bundle, and the seconds from arrays to files on disk; ``ours`` builds the graph again."""
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
        graph = next((engine for engine in (HnswEngine, HnswSq8Engine) if engine.kind == kind), None)
        settings = {"kind": kind} | ({"m": self.m, "ef_construction": self.breadth} if graph else {})
        reuses_graph = graph is not None and rows is None and not ours
        faiss.omp_set_num_threads(2)
        start = process_time()
        with patch.object(graph, "build", classmethod(self._reuse_graph)) if reuses_graph else nullcontext():
            bundle.write_bundle(
                path,
                name="benchmark",
                items=items,
                model_hash=hash_model_name("benchmark", vectors.shape[1]),
                index_config=IndexConfig.model_validate(settings),
            )
        seconds = process_time() - start + (self.graph_seconds if reuses_graph else 0.0)
        took.write_text(json.dumps(seconds))
        return path, seconds

    def _reuse_graph(
        self, cls: type[HnswEngine], vectors: UnitVectors, rows: Any, config: IndexConfig, track: Any
    ) -> HnswEngine:
        """The bare graph as an engine, its rows brought to 8 bits for ``hnsw_sq8``."""
        index = self.graph
        if cls is HnswSq8Engine:
            quantizer = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexHNSWSQ(vectors.shape[1], quantizer, self.m, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors[:100_000])
            faiss.downcast_index(index.storage).add(vectors)
            index.hnsw, index.ntotal = self.graph.hnsw, len(vectors)
        parameters = {
            "m": config.m,
            "ef_construction": config.ef_construction,
            "ef_search": choose_beam(len(vectors)),
        }
        engine = cls(faiss.clone_index(index), parameters)
        engine._row_of_id, engine._n_rows = rows, len(vectors)
        return engine


_OPENED: list[Gallery] = []


def open_faiss(path: Path) -> Any:
    """The FAISS index that a bundle's engine searches."""
    gallery = Gallery.open(path)
    assert gallery.view.main is not None
    _OPENED.append(gallery)  # whose memory it reads
    return cast(Any, gallery.view.main.engine)._index


def open_gallery(path: Path) -> tuple[Gallery, dict[str, Any]]:
    """A gallery, how long it took to open, and what it says of itself."""
    start = perf_counter()
    gallery = Gallery.open(path)
    hashed = perf_counter() - start
    start = perf_counter()
    gallery._bundle.open_generation()
    mapped = perf_counter() - start
    stats = {name: gallery.compute_stats()[name] for name in ("missed", "linked", "side_list", "audited")}
    size = round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20)
    return gallery, {
        "open s, files hashed before": round(mapped, 3),
        "open s": round(hashed, 2),
        **stats,
        "files MB": size,
    }


def build_gallery_search(gallery: Gallery, deleted: Bools | None = None) -> Search:
    """Our search, decision included, as the gallery is set; ``deleted`` rows are deleted before."""
    main = gallery.view.main
    assert main is not None
    if deleted is not None:
        gallery._items._shown = GalleryView(main, main.build_live_rows(~deleted))  # type: ignore[attr-defined]

    def search(queries: UnitVectors) -> Int64s:
        results = gallery.search(queries, K, min_score=-1.0)
        return np.array([[int(hit.id) for hit in hits] for hits in results])

    return search


def build_gallery_searches(gallery: Gallery) -> tuple[Callable[[int], Search], list[int]]:
    """Our search at an effort, and the efforts there are: beams, numbers of cells, or 0 for ``flat``."""
    main = gallery.view.main
    assert main is not None
    parameters = main.engine.parameters
    name = {"flat": "", "ivf_pq": "nprobe"}.get(main.engine.kind, "ef_search")
    cells = int(parameters.get("cells", 0))
    efforts = {"": [0], "nprobe": [cells * percent // 100 for percent in range(4, 101, 4)]}

    def at(effort: int) -> Search:
        if name:
            parameters[name] = effort
        return build_gallery_search(gallery)

    return at, efforts.get(name, list(EFFORTS))


def build_bare_searches(index: Any) -> Callable[[int], Search]:
    """FAISS itself on one of its own indexes."""

    def at(effort: int) -> Search:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return lambda queries: index.search(queries, K, params=parameters)[1]

    return at
