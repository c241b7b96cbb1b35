"""Arrow columns whose values are vectors, as matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.errors import InputError
from embeddings.arrow_columns import is_number, simplify
from embeddings.list_columns import is_lists


def convert_vectors(
    column: Any,
    source: str,
    what: str = "the column of embeddings",
    first_row: int = 0,
    dimension: int | None = None,
) -> NDArray[Any]:
    """Lists of numbers (of any Arrow type of list, tensors of one axis, decimals) as numbers [b, d].

    Args:
        first_row: number of the first row, where rows come block by block.
        dimension: d of the rows before, if there were any.

    Raises:
        InputError: values that are no lists of numbers, missing, or of several lengths; names the row.
    """
    given = column.type
    if isinstance(given, pa.BaseExtensionType) and given.extension_name == "arrow.fixed_shape_tensor":
        shape = list(given.shape)
        if math.prod(shape) != max(shape, default=0):
            raise InputError(
                f"{source}: {what} must hold vectors, found tensors of shape {shape}: flatten them."
            )
    column = simplify(column)
    if not is_lists(column.type) or not is_number(column.type.value_type):
        raise InputError(f"{source}: {what} must hold lists of numbers, found {given}.")
    if column.null_count:
        row = first_row + pc.index(pc.is_null(column), True).as_py()
        raise InputError(f"{source}: row {row} has no embedding.")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    expected = (int(lengths[0]) if len(lengths) else 0) if dimension is None else dimension
    deviating = np.flatnonzero(lengths != expected)
    if deviating.size:
        raise InputError(
            f"{source}: row {first_row + deviating[0]} has an embedding of {lengths[deviating[0]]} numbers, "
            f"row 0 of {expected}."
        )
    flat = column.flatten()
    if pa.types.is_decimal(flat.type):
        flat = flat.cast(pa.float64())
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(column), expected)
