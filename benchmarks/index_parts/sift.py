"""Real descriptors: SIFT's sample of 5,000 x 128 from the shared data, against brute force in float64."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from api_schemas.build_config import IndexConfig
from benchmarks.index_parts.measure import K
from common.array_types import Float32s
from embeddings.embedding_set import EmbeddingSet, normalise_rows
from index.bundle import write_bundle
from index.gallery.gallery import Gallery


def measure_sift(kind: str) -> dict[str, Any]:
    """Recall of the ten nearest, and the largest error of a similarity."""
    folder = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "sift5k"
    if not folder.is_dir():
        return {"SIFT cannot be measured": f"{folder} is not here (LIMEN_DATASETS)"}
    base, queries = (normalise_rows(_read(folder / f"sift5k_{name}.fvecs")) for name in ("base", "query"))
    exact_products = queries.astype(np.float64) @ base.astype(np.float64).T
    tenth = np.sort(exact_products, axis=1)[:, -K]
    with tempfile.TemporaryDirectory() as scratch:
        write_bundle(
            Path(scratch) / "sift",
            name="sift",
            items=EmbeddingSet.from_arrays(base, np.arange(len(base)) % 100),
            model_hash="0" * 64,
            index_config=IndexConfig.model_validate({"kind": kind}),
        )
        results = Gallery.open(Path(scratch) / "sift").search(queries, K)
    right, furthest = 0.0, 0.0
    for query, hits in enumerate(results):
        exact = exact_products[query, [hit.row for hit in hits]]
        right += float(np.mean(exact >= tenth[query] - 1e-7))
        furthest = max(furthest, float(np.abs(exact - [hit.similarity for hit in hits]).max()))
    return {"queries": len(queries), "recall": round(right / len(queries), 4), "similarity off by": furthest}


def _read(file: Path) -> Float32s:
    """Rows of an fvecs file: each is its int32 length, then its numbers."""
    raw = np.fromfile(file, dtype="<i4")
    return raw.reshape(-1, raw[0] + 1)[:, 1:].copy().view(np.float32)
