"""Files as format 1 writes them, kept so that later versions are held to reading them.

Made once per format by ``python -m tests.index.golden FOLDER``; never made again for a format that is out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from api_schemas.operating_point import OperatingPoint
from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from index.gallery.backup import write_backup
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.index.conftest import MODEL, make_small_config, point

VECTORS = np.array(
    [[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0.6, 0, 0.8]], dtype=np.float32
)
LABELS = ["a", "a", "7", "7", "b"]
COLOURS = ["red", None, "green", "green", "blue"]


def items() -> EmbeddingSet:
    """Five items, two of them alike to the bit."""
    metadata = {"colour": np.array(COLOURS, dtype=object), "size": np.arange(5), "sold": np.arange(5) > 2}
    return EmbeddingSet.from_arrays(VECTORS, LABELS, [f"i{row}" for row in range(5)], metadata)


def build_points() -> list[OperatingPoint]:
    """One point for each verb."""
    return [point("fpir", 0.75), point("far", 0.5)]


def make(folder: Path) -> None:
    """A bundle, and a backup of a data folder in which two items changed."""
    both = build_points()
    write_bundle(
        folder / "bundle",
        name="golden",
        items=items(),
        model_hash=MODEL,
        index_config=make_small_config("hnsw", m=4),
        operating_points=both,
        active={"match": both[0].id, "verify": both[1].id},
        config_yaml="index: {kind: hnsw}\n",
        cohort=items().subset([0, 1]),
    )
    with LiveGallery.open(folder / "bundle", folder / "data") as live:
        live.upsert([StoredItem("new", "c", VECTORS[1], {"size": 9})])
        live.rebuild()
        live.upsert([StoredItem("i4", "b", VECTORS[0], {"colour": "white"})])
        live.delete(["i0"])
        write_backup(folder / "data", folder / "backup")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
