"""A sample of the items of a bundle, read from its files without opening its index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from api_schemas.manifest import ITEMS_FILE, VECTORS_FILE
from common.array_types import UnitVectors


def read_item_sample(bundle: Path, n: int) -> tuple[UnitVectors, list[str]]:
    """Vectors, float32 [<= n, d], and labels of evenly spaced items."""
    vectors = np.load(bundle / VECTORS_FILE, mmap_mode="r")
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(n, len(vectors))).astype(np.int64))
    labels = pq.read_table(bundle / ITEMS_FILE, columns=["label"]).column("label").take(rows).to_pylist()
    return np.array(vectors[rows], dtype=np.float32), labels
