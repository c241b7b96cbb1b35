"""Tables, texts and precomputed vectors: files to items whose inputs are still raw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from api_schemas.config import DataConfig
from api_schemas.errors import ConfigError, InputError
from decision.embedding_files import read_embeddings
from training.data.items import Items
from training.data.tables import joined, numeric_columns, other_columns, read_table, text_column

Read = tuple[Items, list[str]]
"""Items with raw inputs (float64 [n, columns], float32 [n, dim] or text [n]) and the columns' names."""


def read_rows(paths: Sequence[Path], data: DataConfig, columns: list[str] | None = None) -> Read:
    """A table whose numeric columns are the input; label, split, group, time and id columns are not.

    Args:
        columns: what the columns must be, in order; for a test set.

    Raises:
        InputError: a missing column, a value that is no number; names file, column and row.
    """
    table = joined([read_table(path) for path in paths], paths)
    marked = {data.label_column, data.split_column, data.group_column, data.time_column, "id"} - {None}
    if columns is not None:
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise InputError(f"{paths[0]} has no column '{missing[0]}', which is trained on.")
        marked = set(table.column_names) - set(columns)
    values, names = numeric_columns(table, {str(name) for name in marked}, paths[0])
    labels = text_column(table, data.label_column, paths[0])
    ids = text_column(table, "id", paths[0]) if "id" in table.column_names else _numbered(len(labels))
    metadata = other_columns(table, {data.label_column, "id", *names})
    order = [names.index(name) for name in columns or names]
    return Items(values[:, order], labels, ids, metadata), columns or names


def read_texts(paths: Sequence[Path], data: DataConfig, columns: list[str] | None = None) -> Read:
    """A table with one column of texts; raises InputError naming a missing column or an empty text's row."""
    table = joined([read_table(path) for path in paths], paths)
    texts = text_column(table, data.text_column, paths[0])
    empty = np.flatnonzero(np.char.str_len(np.char.strip(texts)) == 0)
    if len(empty):
        raise InputError(f"{paths[0]}: row {empty[0]} of column '{data.text_column}' is empty.")
    labels = text_column(table, data.label_column, paths[0])
    ids = text_column(table, "id", paths[0]) if "id" in table.column_names else _numbered(len(labels))
    return Items(texts, labels, ids, other_columns(table, {data.label_column, "id"})), [data.text_column]


def read_vectors(paths: Sequence[Path], data: DataConfig, columns: list[str] | None = None) -> Read:
    """An embeddings file; raises InputError where a test set's dimension is another."""
    if len(paths) != 1:
        raise ConfigError(f"data.path: kind 'embeddings' takes one file, found {len(paths)}.")
    read = read_embeddings(paths[0])
    if columns is not None and len(columns) != read.dimension:
        raise InputError(
            f"{paths[0]} has vectors of {read.dimension} numbers, {data.paths[0]} of {len(columns)}."
        )
    names = [str(number) for number in range(read.dimension)]
    return Items(read.vectors, read.labels, read.ids, read.metadata), names


def _numbered(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.str_]]:
    return np.arange(n).astype(np.str_)
