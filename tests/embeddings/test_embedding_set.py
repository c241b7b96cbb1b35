"""Arrays as embedding sets: what is normalised, what is refused and how."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, concatenate, normalise_rows

VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_rows_become_unit_float32(dtype: type) -> None:
    rows = normalise_rows(VECTORS.astype(dtype))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [1, 0], [0, -1]], atol=1e-7)


def test_tiny_and_large_rows_keep_their_direction() -> None:
    rows = normalise_rows([[3e-150, 4e-150], [3e150, 4e150]])
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
    chosen = items.select_classes(["b"])
    assert chosen.ids.tolist() == ["i", "k"]
    assert chosen.metadata["m"].tolist() == [1, 3]
    assert items.codes.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(items.subset([1]).vectors, items.vectors[1:2])


def test_sets_are_put_together_in_their_order_and_an_id_of_two_is_refused() -> None:
    first = EmbeddingSet.from_arrays([[1, 0], [0, 1]], ["a", "b"], ["1", "2"], {"site": ["x", "y"]})
    second = EmbeddingSet.from_arrays([[1, 1]], ["b"], ["3"], {"age": [7]})
    both = concatenate([first, second])
    assert (both.ids.tolist(), both.labels.tolist()) == (["1", "2", "3"], ["a", "b", "b"])
    assert np.array_equal(both.vectors, np.concatenate([first.vectors, second.vectors]))
    assert {name: column.tolist() for name, column in both.metadata.items()} == {
        "site": ["x", "y", None],
        "age": [None, None, 7],
    }
    with pytest.raises(InputError, match="the id '2' occurs in two"):
        concatenate([first, first.subset([1])])
