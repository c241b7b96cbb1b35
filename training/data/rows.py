"""Tables, texts and precomputed vectors: files to items whose inputs are still raw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from api_schemas.config import DataConfig
from api_schemas.errors import ConfigError, InputError
from decision.embedding_files import read_embeddings
from decision.embeddings import Text
from training.data.items import Items
from training.data.mapped import Mapped
from training.data.pairs import classes_of, holds_pairs
from training.data.tables import LISTS, joined, numeric_columns, other_columns, read_table, text_column

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
    """A table with one column of texts, or pairs or triplets of texts.

    Raises:
        InputError: a missing column, or an empty text; names the row.
    """
    table = joined([read_table(path) for path in paths], paths)
    if holds_pairs(table, data.label_column):
        texts, labels = classes_of(table, paths[0])
        _refuse_empty(texts, str(paths[0]), "item", "")
        return Items(texts, labels, _numbered(len(texts))), [data.text_column]
    texts = text_column(table, data.text_column, paths[0])
    _refuse_empty(texts, str(paths[0]), "row", f" of column '{data.text_column}'")
    labels = text_column(table, data.label_column, paths[0])
    ids = text_column(table, "id", paths[0]) if "id" in table.column_names else _numbered(len(labels))
    return Items(texts, labels, ids, other_columns(table, {data.label_column, "id"})), [data.text_column]


def _refuse_empty(texts: Text, source: str, what: str, where: str) -> None:
    empty = np.flatnonzero(np.char.str_len(np.char.strip(texts)) == 0)
    if len(empty):
        raise InputError(f"{source}: {what} {empty[0]}{where} is empty.")


def read_vectors(paths: Sequence[Path], data: DataConfig, columns: list[str] | None = None) -> Read:
    """An embeddings file, or a ``.npy`` of vectors that stay on disk, its labels beside it.

    Raises:
        InputError: what ``read_embeddings`` refuses, or a test set of another dimension.
    """
    if len(paths) != 1:
        raise ConfigError(f"data.path: kind 'embeddings' takes one file, found {len(paths)}.")
    if paths[0].suffix == ".npy":
        items = _mapped_items(paths[0], data)
    else:
        read = read_embeddings(paths[0])
        items = Items(read.vectors, read.labels, read.ids, read.metadata)
    dimension = items.inputs.shape[1]
    if columns is not None and len(columns) != dimension:
        raise InputError(f"{paths[0]} has vectors of {dimension} numbers, {data.paths[0]} of {len(columns)}.")
    return items, [str(number) for number in range(dimension)]


def _mapped_items(path: Path, data: DataConfig) -> Items:
    """``X.npy`` with ``X.labels.npy``, or with ``X.labels.csv`` or ``.parquet``, which may have more columns.

    Such a table holds one row a vector, or pairs or triplets of row numbers.
    """
    beside = [path.with_suffix(f".labels{suffix}") for suffix in (".npy", *sorted(LISTS))]
    labelled = next((one for one in beside if one.is_file()), None)
    if labelled is None:
        raise InputError(f"{path} has no labels: expected {beside[0].name}, .csv or .parquet beside it.")
    vectors = Mapped.open(path)
    if labelled.suffix == ".npy":
        labels = _label_array(labelled)
        table = pa.table({data.label_column: labels})
    else:
        table = read_table(labelled)
    if holds_pairs(table, data.label_column):
        names, labels = classes_of(table, labelled)
        wrong = [name for name in names if not (name.isdecimal() and int(name) < len(vectors))]
        if wrong:
            raise InputError(f"{labelled}: '{wrong[0]}' is no row of {path}, which has {len(vectors)}.")
        return Items(vectors.subset(names.astype(np.int64)), labels, names)
    if table.num_rows != len(vectors):
        raise InputError(f"{labelled} has {table.num_rows} rows, {path} has {len(vectors)}.")
    labels = text_column(table, data.label_column, labelled)
    ids = text_column(table, "id", labelled) if "id" in table.column_names else _numbered(len(labels))
    return Items(vectors, labels, ids, other_columns(table, {data.label_column, "id"}))


def _label_array(path: Path) -> np.ndarray[tuple[int, ...], Any]:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a plain .npy array: {error}.") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(f"{path} must hold one integer or text a row, found {labels.dtype} {labels.shape}.")
    return np.asarray(labels)


def _numbered(n: int) -> Text:
    return np.arange(n).astype(np.str_)
