"""Emptied with and without a rebuild, loaded as the service does, and filled again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from index.items.stored_item import StoredItem
from service.models.loaded_model import load_model
from service.settings import load_settings

rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
items = EmbeddingSet.from_arrays(rows, list("aabbcc"), list("012345"))
for kind in ("flat", "hnsw"):
    bundle = Path(kind)
    config = IndexConfig(kind=kind)
    write_bundle(bundle, name="b", items=items, model_hash="a" * 64, index_config=config)
    settings = load_settings(bundle=bundle, data=Path(f"data-{kind}"), port=0)
    for step in ("delete", "rebuild", "open", "fill", "look"):
        model = load_model(bundle, settings)
        assert model.live is not None
        with model.live as live:
            assert model.probe.self_recall == 1.0
            assert live.gallery.n_items == {"delete": 6, "look": 1}.get(step, 0), step
            if step == "delete":
                live.delete(list("012345"))
            elif step == "rebuild":
                live.rebuild()
            elif step == "fill":
                live.upsert([StoredItem("a", "a", rows[0])])
            hits = live.gallery.search(rows[0], 3)[0]
            assert [hit.id for hit in hits] == (["a"] if step in {"fill", "look"} else [])
