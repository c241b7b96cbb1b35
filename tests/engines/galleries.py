"""A gallery that holds what is hard for engines: copies, ties, a decision on the edge of its threshold."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from api_schemas.operating_point import OperatingPoint
from decision.targets import select_active
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from index.bundle import write_bundle
from tests.index.conftest import make_unit_rows, point

CLASSES, OF_CLASS, DIM = 20, 8, 16
CONFIGS: dict[IndexKind, IndexConfig] = {
    "flat": IndexConfig(kind="flat"),
    "hnsw": IndexConfig(kind="hnsw", m=16, ef_construction=80),
    "hnsw_sq8": IndexConfig(kind="hnsw_sq8", m=16, ef_construction=80),
    "ivf_pq": IndexConfig(kind="ivf_pq", nprobe=10_000),
    "milvus": IndexConfig(kind="milvus", m=16, ef_construction=80),
}


def normalise(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@cache
def make_gallery() -> EmbeddingSet:
    """160 items of 20 classes: clusters, 20 copies of one vector under four labels, and a mirrored pair."""
    rng = np.random.default_rng(7)
    centres = make_unit_rows(rng, CLASSES, DIM)
    rows = normalise(np.repeat(centres, OF_CLASS, axis=0) + 0.15 * rng.normal(size=(CLASSES * OF_CLASS, DIM)))
    labels = np.repeat([f"c{number:02}" for number in range(CLASSES)], OF_CLASS)
    rows[20:40] = rows[20]
    rows[40:42] = 0  # equally near to the first axis, and of two classes
    rows[40, :2], rows[41, :2] = (0.8, 0.6), (0.8, -0.6)
    labels[41] = "c06"
    numbers = np.arange(len(rows))
    metadata = {
        "camera": numbers % 3,
        "place": np.where(numbers % 2 == 0, 'north "a\\b"', "süd"),
        "weight": np.where(numbers % 5 == 0, np.nan, numbers / 4),
        "seen": numbers.astype("datetime64[h]"),
        "good": numbers % 4 == 0,
        "tags": [[["red", 'o"ld'], [], None, ["süd"]][n % 4] for n in range(len(rows))],
        "marks": [[[1, 0.5], [2], []][n % 3] for n in range(len(rows))],
    }
    return EmbeddingSet.from_arrays(rows, labels, [f"i{number:03}" for number in numbers], metadata)


@cache
def make_queries() -> NDArray[np.float32]:
    """float32 [26, 16]: near items, far from all, the axis between the mirrored pair, and stored vectors."""
    rng = np.random.default_rng(8)
    stored = make_gallery().vectors
    near = normalise(stored[rng.integers(0, len(stored), 12)] + 0.1 * rng.normal(size=(12, DIM)))
    axis = np.eye(1, DIM, dtype=np.float32)
    return np.concatenate([near, make_unit_rows(rng, 8, DIM), axis, stored[20:21], stored[50:54]])


def get_edge(query: int) -> np.float32:
    """The similarity of a query to its nearest item: a threshold on which it just matches."""
    gallery, queries = make_gallery(), make_queries()
    left = np.repeat(queries[query : query + 1], len(gallery), axis=0)
    return np.float32(compute_pair_similarities(left, gallery.vectors).max())


def hash_model(name: str) -> str:
    """A model of this name: on a database server every model has a schema of its own."""
    return hashlib.sha256(name.encode()).hexdigest()


def make_point(model_hash: str, threshold: float) -> OperatingPoint:
    return point("fpir", threshold, model_hash, items=len(make_gallery()))


def write_gallery(out: Path, kind: IndexKind, model_hash: str, threshold: float) -> Path:
    """A bundle of the gallery with such an engine and a 1:N point."""
    points = [make_point(model_hash, threshold)]
    write_bundle(
        out,
        name="contract",
        items=make_gallery(),
        model_hash=model_hash,
        index_config=CONFIGS[kind],
        operating_points=points,
        active=select_active(points),
        config_yaml="index: {}\n",
    )
    return out
