"""Tables and texts: files to items whose inputs are still raw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from api_schemas.config import DataConfig
from common.errors import InputError
from training.data.items import Items
from training.data.pair_labels import classes_of, holds_pairs
from training.data.tables import (
    LONG,
    joined,
    long_texts,
    numbered,
    numeric_columns,
    other_columns,
    read_table,
    text_column,
)


def read_rows(
    paths: Sequence[Path], data: DataConfig, columns: list[str] | None = None
) -> tuple[Items, list[str]]:
    """A table whose numeric columns are the input; label, split, group, time and id columns are not.

    Args:
        columns: what the columns must be, in order, where a model is there already.

    Returns:
        Items whose inputs are float64 [n, columns], and the columns' names.

    Raises:
        InputError: a missing column, a value that is no number; names file, column and row.
    """
    table = joined([read_table(path, {data.label_column, "id"}) for path in paths], paths)
    marked = {data.label_column, data.split_column, data.group_column, data.time_column, "id"} - {None}
    if columns is not None:
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise InputError(f"{paths[0]} has no column '{missing[0]}', which is trained on.")
        marked = set(table.column_names) - set(columns)
    values, names = numeric_columns(table, {str(name) for name in marked}, paths[0])
    labels = text_column(table, data.label_column, paths[0])
    ids = text_column(table, "id", paths[0]) if "id" in table.column_names else numbered(len(labels))
    metadata = other_columns(table, {data.label_column, "id", *names}, paths[0])
    order = [names.index(name) for name in columns or names]
    return Items(values[:, order], labels, ids, metadata), columns or names


def read_texts(paths: Sequence[Path], data: DataConfig) -> Items:
    """A table with one column of texts, or pairs or triplets of texts: inputs are text objects [n].

    The beginning of each text is metadata as well.

    Raises:
        InputError: a missing column, or an empty text; names the row.
    """
    as_written = {data.label_column, data.text_column, "id"}
    table = joined([read_table(path, as_written) for path in paths], paths)
    if holds_pairs(table, data.label_column):
        texts, labels = classes_of(table, paths[0])
        return Items(texts, labels, numbered(len(texts)))
    texts = long_texts(table, data.text_column, paths[0])
    labels = text_column(table, data.label_column, paths[0])
    ids = text_column(table, "id", paths[0]) if "id" in table.column_names else numbered(len(labels))
    metadata = other_columns(table, {data.label_column, data.text_column, "id"}, paths[0])
    metadata[data.text_column] = np.array([text[:LONG] for text in texts])
    return Items(texts, labels, ids, metadata)
