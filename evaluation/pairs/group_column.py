"""A metadata column whose values are groups: sites, cameras, ages, languages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.array_types import Texts
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, read_single_values

MOST_GROUPS = 200
MOST_MISSING = 0.1  # of the rows; with more, nothing could be said of "every group"


def read_group_values(items: EmbeddingSet, column: str) -> NDArray[Any]:
    """A column to group by, one value a row; raises InputError where there is none."""
    return read_single_values(
        items.metadata,
        column,
        lambda known: f"There is no column '{column}' to group by; the data has: {known}.",
    )


def read_group_column(items: EmbeddingSet, column: str) -> Texts:
    """The group of each item, text [n]; empty where it is missing.

    Raises InputError for a column that is not in the data, has too many values, or is empty in many rows.
    """
    values = read_group_values(items, column)
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    texts: Texts = np.array(pc.fill_null(pc.cast(array, pa.large_string()), "").to_pylist(), dtype=np.str_)
    texts = np.char.strip(texts)
    missing = int(np.sum(texts == ""))
    if missing > MOST_MISSING * len(texts):
        raise InputError(
            f"The column '{column}' is empty in {missing} of {len(texts)} rows, and nothing can be said of a "
            "group that these may belong to: fill it in, leave these rows out, or group by another column. "
            f"At most {MOST_MISSING:.0%} of the rows may be without a group."
        )
    n = len(np.unique(texts))
    if n > MOST_GROUPS:
        raise InputError(f"The column '{column}' has {n} values, at most {MOST_GROUPS} make groups.")
    return texts


def list_groups(texts: Texts) -> list[str]:
    """The groups, without that of items that have none."""
    return [str(value) for value in np.unique(texts) if value != ""]
