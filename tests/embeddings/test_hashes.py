"""Hashes of data and models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_encoder, hash_items, hash_model_name

VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])


def test_hashes_follow_rows_labels_and_model(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["a", "b", "c"])
    assert hash_items(items) == hash_items(
        EmbeddingSet.from_arrays(VECTORS, ["a", "b", "c"], ids=["x", "y", "z"])
    )
    assert hash_items(items) != hash_items(EmbeddingSet.from_arrays(VECTORS, ["a", "b", "d"]))
    assert hash_items(items) != hash_items(EmbeddingSet.from_arrays(VECTORS[::-1], ["a", "b", "c"]))
    assert hash_items(EmbeddingSet.from_arrays(VECTORS, ["a", "bc", "d"])) != hash_items(
        EmbeddingSet.from_arrays(VECTORS, ["ab", "c", "d"])
    )
    assert hash_model_name("m", 2) == hash_model_name("m", 2)
    assert len({hash_model_name("m", 2), hash_model_name("m", 3), hash_model_name("n", 2)}) == 3
    encoder, preprocessing = tmp_path / "encoder.onnx", tmp_path / "preprocessing.json"
    encoder.write_bytes(b"net")
    preprocessing.write_bytes(b"{}")
    before = hash_encoder(encoder, preprocessing)
    preprocessing.write_bytes(b"{ }")
    assert hash_encoder(encoder, preprocessing) != before
