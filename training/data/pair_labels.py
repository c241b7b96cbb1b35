"""Classes from pairs and triplets: the connected components of the positive pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.array_types import Bools, Texts
from common.errors import InputError
from training.data.tables import read_long_texts

PAIRS, TRIPLETS = ("a", "b", "same"), ("anchor", "positive", "negative")


def holds_pairs(table: pa.Table, label_column: str) -> bool:
    """Whether a table without labels names pairs (a, b, same) or triplets (anchor, positive, negative)."""
    names = set(table.column_names)
    return label_column not in names and (names >= set(PAIRS) or names >= set(TRIPLETS))


def group_pairs(table: pa.Table, path: Path) -> tuple[NDArray[np.object_], Texts]:
    """The distinct items of a table of pairs or triplets, and their classes.

    Two items of one positive pair are of one class, and so are all that such pairs connect; items that
    nothing connects are of different classes, as they are in every batch that is trained on.

    Returns:
        text objects [n], what the table calls the items, in the order they first come; text [n], their
        classes.

    Raises:
        InputError: a value missing or empty, ``same`` that is not 0 or 1, or a row that says two items differ
            which others say are the same; names the row.
    """
    if set(table.column_names) >= set(TRIPLETS):
        anchor, positive, negative = (read_long_texts(table, name, path) for name in TRIPLETS)
        first, second = np.concatenate([anchor, anchor]), np.concatenate([positive, negative])
        same = np.repeat([True, False], len(anchor))
    else:
        first, second = (read_long_texts(table, name, path) for name in PAIRS[:2])
        same = _read_same(table, path)
    names, positions, codes = np.unique(
        np.stack([first, second], axis=1).ravel(), return_index=True, return_inverse=True
    )
    order = np.argsort(positions)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    a, b = rank[codes].reshape(-1, 2).T
    edges = coo_array((np.ones(int(same.sum())), (a[same], b[same])), shape=(len(names), len(names)))
    _, groups = connected_components(edges, directed=False)
    contradicting = np.flatnonzero(~same & (groups[a] == groups[b]))
    if len(contradicting):
        pair = int(contradicting[0])
        raise InputError(
            f"{path}: row {pair % table.num_rows} says that '{first[pair]}' and '{second[pair]}' differ, "
            "other rows say that they are the same."
        )
    return names[order], groups.astype(np.str_)


def _read_same(table: pa.Table, path: Path) -> Bools:
    column = table.column("same")
    values = np.array(pc.cast(column, pa.string()).to_pylist(), dtype=object)
    known = {"1": True, "true": True, "0": False, "false": False}
    same = [known.get(str(value).lower()) for value in values]
    if None in same:
        row = same.index(None)
        raise InputError(f"{path}: row {row} of column 'same' is {values[row]!r}, expected 0 or 1.")
    return np.array(same, dtype=bool)
