"""Arrow columns whose values are lists, as values one after the other and where each row's begin."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.array_types import Bools, Int64s


class ListParts(NamedTuple):
    """A column of n lists: ``values`` Arrow [m], ``lengths`` int64 [n], ``missing`` bool [n]."""

    values: Any
    lengths: Int64s
    missing: Bools

    @property
    def rows(self) -> Int64s:
        """int64 [m]: the row of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def is_lists(kind: Any) -> bool:
    """Whether a column of this type, simplified, holds lists of any length."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def split_lists(column: Any) -> ListParts:
    """The parts of a column of lists of any of Arrow's types; a missing list has no values."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    missing: Bools = pc.is_null(column).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return ListParts(pc.list_flatten(column), lengths.astype(np.int64), missing)


def build_lists(parts: ListParts) -> Any:
    """The column of such parts, as large_list."""
    offsets = np.concatenate([[0], np.cumsum(parts.lengths)])
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), parts.values, mask=pa.array(parts.missing)
    )


def find_unfit_list(parts: ListParts) -> str | None:
    """What is wrong with the first list that is no metadata, with its row, and what to do; None if all fit.

    Args:
        parts: their values are text or numbers, NaN as missing.
    """
    values, rows = parts.values, parts.rows
    wrong = {"a missing value": pc.is_null(values)}
    if pa.types.is_floating(values.type):
        wrong["infinity"] = pc.fill_null(pc.is_inf(values), False)
    elif pa.types.is_uint64(values.type):
        wrong["a whole number beyond 2^63"] = pc.fill_null(
            pc.greater_equal(values, pa.scalar(2**63, pa.uint64())), False
        )
    for what, is_wrong in wrong.items():
        at = pc.index(is_wrong, True).as_py()
        if at >= 0:
            return f"{what} in the list of row {rows[at]}: write lists of text or of finite numbers"
    return None


def fill_array(column: Any) -> NDArray[Any]:
    """Lists as Python has them in an array of objects, masked where one is missing."""
    filled = np.empty(len(column), dtype=object)
    for row, values in enumerate(column.to_pylist()):
        filled[row] = [] if values is None else values
    if not column.null_count:
        return filled
    return np.ma.MaskedArray(filled, pc.is_null(column).to_numpy(zero_copy_only=False))
