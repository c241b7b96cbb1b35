"""Rows of numbers to arrays, and every row that must be refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from encoder import Encoder
from encoder.inputs.row_input import TablePreprocessing
from tests.encoder.encoders import TABLE, write_linear_encoder


def test_table_is_standardised(tmp_path: Path) -> None:
    prepared = TablePreprocessing(TABLE).prepare([[1.0, 1.0, 6.0]])
    np.testing.assert_array_equal(prepared, np.array([[1.0, 0.0, 1.0]], dtype=np.float32))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1.0, 2.0], "Input 70: this model takes rows of 3 numbers, found 2 values"),
        ([1.0, float("nan"), 0.0], "Input 70: it has a value that is not finite"),
        ([1.0, 1e300, 0.0], "Input 70: it has a value that does not fit"),
        (["a", "b", "c"], "Input 70: .*not a number"),
        ("text", "Input 70: this model takes rows of 3 numbers"),
    ],
)
def test_refused_rows_are_named(tmp_path: Path, row: object, words: str) -> None:
    write_linear_encoder(tmp_path, TABLE)
    rows: list[object] = [[1.0, 2.0, 3.0]] * 70
    with pytest.raises(InputError, match=words):
        Encoder.open(tmp_path).encode([*rows, row])  # type: ignore[list-item]
