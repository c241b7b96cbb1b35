"""Built, opened with a data folder, filtered, written to, rebuilt and opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from embeddings.files import open_embeddings
from index.bundle import verify_bundle, write_bundle
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem

SERIALS = {"i0": 2**53 + 1, "i2": 2**63 - 1, "i3": -(2**63), "i4": 7}

items = open_embeddings(Path("vectors.parquet")).read()
write_bundle(Path("bundle"), name="b", items=items, model_hash="a" * 64, index_config=IndexConfig())
verify_bundle(Path("bundle"))
query = np.ones(4, dtype=np.float32)


def check(gallery: Gallery) -> None:
    for item_id in ("i0", "i1", "i2", "i3", "i4"):
        item = gallery.get(item_id)
        assert item is not None
        assert item.metadata.get("serial") == SERIALS.get(item_id), item_id
    for condition, expected in (
        ({"serial": 2**53 + 1}, {"i0"}),
        ({"serial": 2**53}, set()),
        ({"serial": {"$gt": 2**53 + 1}}, {"i2"}),
        ({"serial": {"$lt": -(2**63) + 1}}, {"i3"}),
        ({"serial": {"$exists": False}}, {"i1"}),
    ):
        hits = gallery.search(query, 5, filter=condition)[0]
        assert {hit.id for hit in hits} == expected, condition


check(Gallery.open("bundle"))
for _ in range(2):
    with LiveGallery.open("bundle", "data") as live:
        check(live.gallery)
        live.upsert([StoredItem("i4", "c", query, {"serial": 7})])
        live.rebuild()
        check(live.gallery)
