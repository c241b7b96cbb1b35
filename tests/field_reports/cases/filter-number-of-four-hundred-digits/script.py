"""Numbers of any size in searches and deletions, from Python; over HTTP see tests/service/writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from index.gallery.live_gallery import LiveGallery
from index.store.write_order import WriteOrder

HUGE = 10**400
rows = np.random.default_rng(0).normal(size=(6, 4))
items = EmbeddingSet.from_arrays(rows, list("aabbcc"), list("012345"), {"n": np.array([0.5, 1, 2, 3, 4, 5])})
write_bundle(Path("bundle"), name="b", items=items, model_hash="a" * 64, index_config=IndexConfig())
with LiveGallery.open("bundle", "data") as live:
    for condition, n in (
        ({"n": {"$gt": -HUGE, "$lt": HUGE}}, 6),
        ({"n": {"$gt": HUGE}}, 0),
        ({"n": {"$in": [HUGE, 2**70, 2]}}, 1),
        ({"n": {"$ne": 2**64}}, 6),
        ({"label": HUGE}, 0),
    ):
        assert len(live.gallery.search(rows[0], 9, filter=condition)[0]) == n, condition
    order = WriteOrder({"action": "items.delete", "filter": {"n": {"$lt": HUGE}}})
    assert live.delete_where({"n": {"$lt": HUGE}}, order) == list("012345")
    line = json.loads(order.build_audit_line() or "")
    assert line["filter"] == {"n": {"$lt": HUGE}}
    assert line["ids"] == list("012345")
