"""What is let in as embeddings, what is refused and how, and what identifies it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.errors import InputError
from decision.embedding_files import read_embeddings, save_embeddings
from decision.embeddings import EmbeddingSet, unit_rows
from decision.hashes import data_hash, encoder_model_hash, vectors_model_hash

VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_rows_become_unit_float32(dtype: type) -> None:
    rows = unit_rows(VECTORS.astype(dtype))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [1, 0], [0, -1]], atol=1e-7)


def test_tiny_and_large_rows_keep_their_direction() -> None:
    rows = unit_rows([[3e-150, 4e-150], [3e150, 4e150]])
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.6, 0.8]], atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        ([[1.0, 0], [np.nan, 1]], [0, 1], "row 1 of the embeddings holds NaN"),
        ([[1.0, 0], [np.inf, 1]], [0, 1], "row 1 of the embeddings holds an infinite"),
        ([[1.0, 0], [0, 0], [0, 0]], [0, 1, 2], r"row 1 of the embeddings is a zero vector.*2 such rows"),
        ([[1.0, 0], [0, 1]], [0], "2 embeddings need 2 labels, found 1"),
        ([1.0, 2.0], [0, 1], r"\[N, D\]"),
        (np.zeros((0, 3)), [], "non-empty"),
        ([["a", "b"]], [0], "must be numbers"),
        ([[1.0, 0], [1.0]], [0, 1], "not a rectangular array"),
        ([[1.0, 0], [0, 1]], [0.5, 1.5], "integers or text"),
        ([[1.0, 0], [0, 1]], np.array(["a", None], dtype=object), "row 1 of labels"),
    ],
)
def test_bad_arrays_are_refused_by_row(vectors: object, labels: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingSet.from_arrays(vectors, labels)  # type: ignore[arg-type]


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(InputError, match="the id 'x' occurs 2 times"):
        EmbeddingSet.from_arrays(VECTORS, [0, 1, 2], ids=["x", "y", "x"])


def test_integer_labels_are_their_digits_and_large_ones_stay_apart() -> None:
    items = EmbeddingSet.from_arrays(VECTORS, [2**24, 2**24 + 1, 2**53 + 1])
    assert items.labels.tolist() == ["16777216", "16777217", "9007199254740993"]
    assert len(items.classes) == 3
    mixed = EmbeddingSet.from_arrays(VECTORS, np.array([7, "7", "x"], dtype=object))
    assert mixed.labels.tolist() == ["7", "7", "x"]


def test_subsets_keep_rows_together() -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], ids=["i", "j", "k"], metadata={"m": [1, 2, 3]})
    chosen = items.of_classes(["b"])
    assert chosen.ids.tolist() == ["i", "k"]
    assert chosen.metadata["m"].tolist() == [1, 3]
    assert items.codes.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(items.subset([1]).vectors, items.vectors[1:2])


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], ids=["i", "j", "k"], metadata={"m": [1, 2, 3]})
    save_embeddings(items, tmp_path / "e.npz")
    table = pa.table(
        {"embedding": VECTORS.tolist(), "label": ["b", "a", "b"], "id": ["i", "j", "k"], "m": [1, 2, 3]}
    )
    pq.write_table(table, tmp_path / "e.parquet")
    for name in ("e.npz", "e.parquet"):
        again = read_embeddings(tmp_path / name)
        np.testing.assert_allclose(again.vectors, items.vectors, atol=1e-7)
        assert again.labels.tolist() == items.labels.tolist()
        assert again.ids.tolist() == items.ids.tolist()
        assert again.metadata["m"].tolist() == [1, 2, 3]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.npz is not a file"):
        read_embeddings(tmp_path / "missing.npz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"ends in '\.txt'"):
        read_embeddings(tmp_path / "a.txt")
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"broken\.npz cannot be read"):
        read_embeddings(tmp_path / "broken.npz")
    (tmp_path / "broken.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"broken\.parquet cannot be read"):
        read_embeddings(tmp_path / "broken.parquet")
    np.savez(tmp_path / "short.npz", embeddings=VECTORS)
    with pytest.raises(InputError, match=r"short\.npz has no array 'labels'; found embeddings"):
        read_embeddings(tmp_path / "short.npz")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [1.0]], "label": [1, 2]}), tmp_path / "ragged.parquet")
    with pytest.raises(InputError, match="row 1 has an embedding of 1 numbers"):
        read_embeddings(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], None], "label": [1, 2]}), tmp_path / "null.parquet")
    with pytest.raises(InputError, match="row 1 has no embedding"):
        read_embeddings(tmp_path / "null.parquet")


def test_an_npz_of_objects_is_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", embeddings=VECTORS, labels=np.array(["a", 1, None], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        read_embeddings(tmp_path / "o.npz")


def test_hashes_follow_rows_labels_and_model(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["a", "b", "c"])
    assert data_hash(items) == data_hash(
        EmbeddingSet.from_arrays(VECTORS, ["a", "b", "c"], ids=["x", "y", "z"])
    )
    assert data_hash(items) != data_hash(EmbeddingSet.from_arrays(VECTORS, ["a", "b", "d"]))
    assert data_hash(items) != data_hash(EmbeddingSet.from_arrays(VECTORS[::-1], ["a", "b", "c"]))
    assert data_hash(EmbeddingSet.from_arrays(VECTORS, ["a", "bc", "d"])) != data_hash(
        EmbeddingSet.from_arrays(VECTORS, ["ab", "c", "d"])
    )
    assert vectors_model_hash("m", 2) == vectors_model_hash("m", 2)
    assert len({vectors_model_hash("m", 2), vectors_model_hash("m", 3), vectors_model_hash("n", 2)}) == 3
    encoder, preprocessing = tmp_path / "encoder.onnx", tmp_path / "preprocessing.json"
    encoder.write_bytes(b"net")
    preprocessing.write_bytes(b"{}")
    before = encoder_model_hash(encoder, preprocessing)
    preprocessing.write_bytes(b"{ }")
    assert encoder_model_hash(encoder, preprocessing) != before
