"""Python objects at the edge: tensors, frames, Arrow, masked arrays; and what is refused in a sentence."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch

import limen
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, normalise_queries, normalise_rows
from embeddings.python_objects import check_choice, convert_to_number, convert_to_triple

VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])
UNIT = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]], dtype=np.float32)
LABELS = ["b", "a", "b"]


def make_compressed(vectors: np.ndarray[Any, Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.tensor(vectors).to_sparse_csr()


FORMS: dict[str, Any] = {
    "list": VECTORS.tolist(),
    "tuples": [tuple(row) for row in VECTORS],
    "iterator": iter(VECTORS.tolist()),
    "arrays": list(VECTORS),
    "decimals": [[Decimal(repr(float(number))) for number in row] for row in VECTORS],
    "fractions": [[Fraction(number) for number in row] for row in VECTORS],
    "big endian": VECTORS.astype(">f8"),
    "long double": VECTORS.astype(np.longdouble),
    "half": VECTORS.astype(np.float16),
    "unmasked": np.ma.masked_invalid(VECTORS),
    "objects": np.array(VECTORS.tolist(), dtype=object),
    "gradient": torch.tensor(VECTORS, requires_grad=True),
    "parameter": torch.nn.Parameter(torch.tensor(VECTORS)),
    "bfloat16": torch.tensor(VECTORS, dtype=torch.bfloat16),
    "float8": torch.tensor(VECTORS).to(torch.float8_e4m3fn),
    "sparse": torch.tensor(VECTORS).to_sparse(),
    "compressed": make_compressed(VECTORS),
    "tensors": list(torch.tensor(VECTORS, requires_grad=True)),
    "scipy": scipy.sparse.csr_matrix(VECTORS),
    "frame": pd.DataFrame(VECTORS),
    "nullable frame": pd.DataFrame(VECTORS).astype("Float32"),
    "series of arrays": pd.Series(list(VECTORS)),
    "frame of lists": pd.DataFrame({"embedding": VECTORS.tolist()}),
    "polars frame": pl.DataFrame(VECTORS),
    "polars lists": pl.Series(VECTORS.tolist()),
    "polars arrays": pl.Series(VECTORS.tolist(), dtype=pl.Array(pl.Float32, 2)),
    "arrow lists": pa.array(VECTORS.tolist()),
    "arrow large lists": pa.chunked_array([pa.array(VECTORS.tolist(), pa.large_list(pa.float32()))]),
    "arrow views": pa.array(VECTORS.tolist(), pa.list_view(pa.float64())),
    "arrow tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS),
    "arrow decimals": pa.array([[Decimal(int(number)) for number in row] for row in VECTORS]),
    "arrow table": pa.table({"x": VECTORS[:, 0], "y": VECTORS[:, 1]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_of_any_form_are_the_same_rows(form: str) -> None:
    np.testing.assert_allclose(normalise_rows(FORMS[form]), UNIT, atol=1e-6)


def test_queries_are_converted_as_vectors_are() -> None:
    query = torch.tensor(VECTORS[0], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(normalise_queries(query, 2), UNIT[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.array(VECTORS, mask=VECTORS == 1), "row 1 holds a masked value"),
        ([None, [1.0, 2.0]], "row 0 has no embedding"),
        (pd.Series([[1.0, 2.0], None]), "row 1 has no embedding"),
        ([torch.ones(2), torch.ones(3)], "not a rectangular array"),
        (torch.ones(2, 2, device="meta"), "Tensor cannot be read as an array"),
        (VECTORS.astype(complex), "must be numbers, found complex"),
        ([["1", "2"]], "must be numbers, found <U1"),
        (pd.DataFrame({"x": [1.0], "name": ["a"]}), "column 'name' must hold numbers"),
        (pa.array([["a"]]), "must hold lists of numbers, found list<item: string>"),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((2, 2, 2))), r"tensors of shape \[2, 2\]"),
        ({"a": 1}, "must be numbers"),
        (None, r"expected a non-empty \[N, D\] array"),
    ],
)
def test_what_holds_no_vectors_is_one_sentence(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        normalise_rows(values)
    assert "\n" not in str(refused.value)


LABEL_FORMS: dict[str, tuple[Any, list[str]]] = {
    "categorical": (pd.Categorical(LABELS), LABELS),
    "category": (pd.Series(LABELS, dtype="category"), LABELS),
    "objects": (pd.Series(["1", 2, "x"], dtype=object), ["1", "2", "x"]),
    "nullable": (pd.Series([2**53 + 1, 1, 2], dtype="Int64"), ["9007199254740993", "1", "2"]),
    "index": (pd.Index(LABELS), LABELS),
    "polars": (pl.Series(LABELS, dtype=pl.Enum(["a", "b"])), LABELS),
    "arrow": (pa.array(LABELS).dictionary_encode(), LABELS),
    "view": (pa.array(LABELS, pa.string_view()), LABELS),
    "bytes": (np.array(LABELS, dtype="S1"), LABELS),
    "variable": (np.array(LABELS, dtype=np.dtypes.StringDType()), LABELS),
    "booleans": ([True, False, True], ["true", "false", "true"]),
    "numpy booleans": (np.array([True, False, True]), ["true", "false", "true"]),
    "tensor": (torch.tensor([3, 1, 3]), ["3", "1", "3"]),
    "tensors": (list(torch.tensor([3, 1, 3])), ["3", "1", "3"]),
    "beyond 64 bits": ([2**70, 1, 2], [str(2**70), "1", "2"]),
    "unsigned": (np.array([2**64 - 1, 1, 2], dtype=np.uint64), [str(2**64 - 1), "1", "2"]),
    "generator": ((label for label in LABELS), LABELS),
    "unmasked": (np.ma.array(LABELS, mask=[False] * 3), LABELS),
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_of_any_form_are_text(form: str) -> None:
    values, expected = LABEL_FORMS[form]
    assert EmbeddingSet.from_arrays(VECTORS, values).labels.tolist() == expected


MISSING: dict[str, Any] = {
    "None": ["a", None, "b"],
    "NaN": ["a", float("nan"), "b"],
    "NaN of objects": np.array(["a", np.nan, "b"], dtype=object),
    "NA": ["a", pd.NA, "b"],
    "NaT": ["a", pd.NaT, "b"],
    "category": pd.Series(["a", None, "b"], dtype="category"),
    "nullable": pd.Series([1, None, 2], dtype="Int64"),
    "floats": pd.Series([1.0, np.nan, 2.0]),
    "polars": pl.Series(["a", None, "b"]),
    "arrow": pa.array(["a", None, "b"]).dictionary_encode(),
    "value of a dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", None, "b"])),
    "masked": np.ma.array(["a", "x", "b"], mask=[False, True, False]),
    "masked integers": np.ma.array([1, 2, 3], mask=[False, True, False]),
}


@pytest.mark.parametrize("form", MISSING)
@pytest.mark.parametrize("what", ["labels", "ids"])
def test_a_missing_label_or_id_is_named(form: str, what: str) -> None:
    given = {"labels": LABELS, what: MISSING[form]}
    with pytest.raises(InputError, match=f"row 1 of {what} has no value"):
        EmbeddingSet.from_arrays(VECTORS, **given)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "", "b"], "row 1 of labels is empty"),
        (np.array(["a", " \t", "b"]), "row 1 of labels is empty"),
        (np.array(["a", "b", "\u200b\u00a0"]), "row 2 of labels is empty"),
        (["a", "\ufeff", "b"], "row 1 of labels is empty"),
        (["a", "b\0", "c"], "row 1 of labels holds a NUL character"),
        (np.array(["a", "b\0c", "c"]), "row 1 of labels holds a NUL character"),
        (["a", "\ud800", "c"], "row 1 of labels holds half a character"),
        (np.array(["a", "\ud800", "c"]), "row 1 of labels holds half a character"),
        ([1.5, 2.0, 3.0], "labels must be integers or text, found 1.5 in row 0"),
        (np.array([1.0, 2.0, 3.0]), "found double: write whole numbers as integers"),
        (["a", ("b",), "c"], r"found \('b',\) in row 1"),
        (np.array([["a"], ["b"], ["c"]]), r"one value a row, found shape \(3, 1\)"),
        (pd.DataFrame({"label": LABELS}), r"one value a row, found shape \(3, 1\)"),
        ("abc", "one value a row, found str"),
        ({"a", "b", "c"}, "one value a row, found set"),
        (["a", "b"], "3 embeddings need 3 labels, found 2"),
    ],
)
def test_labels_that_cannot_be_used_are_one_sentence(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingSet.from_arrays(VECTORS, labels)


def test_metadata_keeps_types_digits_and_what_is_missing() -> None:
    items = EmbeddingSet.from_arrays(
        VECTORS,
        LABELS,
        metadata={
            "whole": pd.Series([2**53 + 1, None, 3], dtype="Int64"),
            "text": np.array(["x", None, "z"], dtype=object),
            "real": [0.5, float("nan"), 1.5],
            "yes": pl.Series([True, None, False]),
            "when": pd.Series(
                pd.to_datetime(["2024-01-31T21:00+09:00", None, "2024-01-31T12:00Z"], utc=True)
            ),
        },
    )
    assert {name: column.dtype.kind for name, column in items.metadata.items()} == {
        "whole": "i",
        "text": "U",
        "real": "f",
        "yes": "b",
        "when": "M",
    }
    assert items.metadata["whole"].tolist() == [2**53 + 1, None, 3]
    assert items.metadata["text"].tolist() == ["x", None, "z"]
    assert items.metadata["real"].tolist() == [0.5, None, 1.5]
    assert items.metadata["yes"].tolist() == [True, None, False]
    assert items.metadata["when"][0] == items.metadata["when"][2] == np.datetime64("2024-01-31T12:00")
    assert items.metadata["when"].mask.tolist() == [False, True, False]
    assert items.subset([1]).metadata["whole"].tolist() == [None]


@pytest.mark.parametrize("unit", ["D", "s", "us", "ns"])
def test_a_list_of_numpys_times_is_a_column_of_times(unit: str) -> None:
    times = np.ma.array(["2024-01-31", "2024-02-01", "2024-02-02"], dtype=f"M8[{unit}]", mask=[0, 1, 0])
    column = EmbeddingSet.from_arrays(VECTORS, LABELS, metadata={"when": list(times)}).metadata["when"]
    assert column[0] == np.datetime64("2024-01-31")
    assert column.mask.tolist() == [False, True, False]


@pytest.mark.parametrize("values", [np.zeros((3, 2)), np.zeros((3, 1)), "camera", 3, [[1], [2], [3]]])
def test_a_column_of_another_shape_is_one_sentence(values: Any) -> None:
    with pytest.raises(InputError, match=r"'exclude_same' must (be|hold) one value a row"):
        limen.evaluate(VECTORS, LABELS, exclude_same=values)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5), Decimal("0.5"), np.array(0.5)])
def test_a_number_is_read_from_whatever_holds_one(value: Any) -> None:
    assert convert_to_number(value, "target_far") == 0.5


@pytest.mark.parametrize("value", ["0.01", b"1", True, [0.1], np.array([0.1]), {}, 1j])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(InputError, match="target_far must be a number, found"):
        limen.calibrate(VECTORS, LABELS, target_far=value)


@pytest.mark.parametrize("cost", ["10,1,0.01", (1, 2), 3, ("1", "2", "0.5"), {1, 2, 3}])
def test_what_is_no_cost_is_named(cost: Any) -> None:
    with pytest.raises(InputError, match=r"cost must be (three numbers|a number), found"):
        limen.calibrate(VECTORS, LABELS, cost=cost)
    assert convert_to_triple([1, Decimal(2), np.float64(0.5)], "cost") == (1.0, 2.0, 0.5)


def test_a_choice_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"score must be one of auto, cosine, .*found 'euclid'"):
        limen.calibrate(VECTORS, LABELS, target_far=0.1, score="euclid")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="x must be one of a, b, found 3"):
        check_choice(3, Literal["a", "b"], "x")
