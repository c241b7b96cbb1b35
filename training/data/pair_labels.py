"""Classes from pairs and triplets: the connected components of the positive pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.array_types import Bools, Int64s, RowIndices, Texts
from common.errors import InputError
from training.data.items import ITEM, QUERY
from training.data.tables import read_checked_texts

LONGEST_NAME = 80  # characters of a class that is called by a text
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
        texts, (anchor, positive, negative) = _number_texts(table, TRIPLETS, path)
        first, second = np.concatenate([anchor, anchor]), np.concatenate([positive, negative])
        same = np.repeat([True, False], len(anchor))
    else:
        texts, (first, second) = _number_texts(table, PAIRS[:2], path)
        same = _read_same(table, path)
    order, (a, b) = _number_as_they_come(np.stack([first, second], axis=1))
    names = texts[order]
    groups = _connect(a[same], b[same], len(names))
    contradicting = np.flatnonzero(~same & (groups[a] == groups[b]))
    if len(contradicting):
        pair = int(contradicting[0])
        raise InputError(
            f"{path}: row {pair % table.num_rows} says that '{names[a[pair]]}' and '{names[b[pair]]}' "
            "differ, other rows say that they are the same."
        )
    return names, groups.astype(np.str_)


@dataclass(frozen=True, eq=False)
class Matches:
    """The distinct queries and items of pairs: text objects [n], their classes, ``query`` or ``item``."""

    texts: NDArray[np.object_]
    labels: Texts
    roles: Texts


def holds_matches(table: pa.Table, label_column: str) -> bool:
    """Whether a table without labels names pairs of a query and an item that belong together."""
    return label_column not in table.column_names and set(table.column_names) >= {QUERY, ITEM}


def group_matches(table: pa.Table, path: Path) -> Matches:
    """The distinct queries and items of a table, and their classes: what pairs connect is of one class.

    A class is called by its first item, cut after 80 characters. A text that is both is one of each.

    Raises:
        InputError: a value missing or empty; names the row.
    """
    queries, query_rows = _number_texts(table, (QUERY,), path)
    items, item_rows = _number_texts(table, (ITEM,), path)
    n = len(queries)
    groups = _connect(query_rows[0], n + item_rows[0], n + len(items))
    _, first = np.unique(groups[n:], return_index=True)  # every group has an item: it was connected by one
    taken: set[str] = set()
    called = np.array([_name_class(str(items[row]), taken) for row in first])
    roles = np.repeat([QUERY, ITEM], [n, len(items)])
    return Matches(np.concatenate([queries, items]), called[groups], roles)


def _name_class(text: str, taken: set[str]) -> str:
    """The beginning of a text, with a number where another class is called so already."""
    name = short = text[:LONGEST_NAME].strip() or text
    number = 1
    while name in taken:
        number += 1
        name = f"{short} ({number})"
    taken.add(name)
    return name


def _number_texts(table: pa.Table, names: Sequence[str], path: Path) -> tuple[NDArray[np.object_], Int64s]:
    """The distinct texts of k columns, column after column, and each one's number, int [k, n].

    Only distinct texts become Python objects: pairs name each of theirs many times.
    """
    columns = pa.chunked_array([read_checked_texts(table, name, path) for name in names])
    encoded = columns.dictionary_encode().combine_chunks()
    texts = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return texts, encoded.indices.to_numpy().astype(np.int64).reshape(len(names), -1)


def _number_as_they_come(codes: Int64s) -> tuple[RowIndices, Int64s]:
    """The codes of int [n, k] in the order they first come row by row, and each one's rank, int [k, n]."""
    distinct, positions = np.unique(codes, return_index=True)
    order = distinct[np.argsort(positions)]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return order, rank[codes].T


def _connect(a: Int64s, b: Int64s, n: int) -> Int64s:
    """The number of the connected component of each of n nodes, joined by edges from a to b, int [n]."""
    edges = coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
    _, groups = connected_components(edges, directed=False)
    return np.asarray(groups)


def _read_same(table: pa.Table, path: Path) -> Bools:
    written = pc.utf8_lower(pc.fill_null(pc.cast(table.column("same"), pa.string()), ""))
    is_same = pc.is_in(written, pa.array(["1", "true"]))
    is_known = pc.or_(is_same, pc.is_in(written, pa.array(["0", "false"])))
    row = pc.index(is_known, False).as_py()
    if row >= 0:
        found = table.column("same").cast(pa.string())[row].as_py()
        raise InputError(f"{path}: row {row} of column 'same' is {found!r}, expected 0 or 1.")
    same: Bools = is_same.to_numpy(zero_copy_only=False)
    return same
