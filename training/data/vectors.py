"""Precomputed vectors: an embeddings file read whole, or a ``.npy`` that stays on disk, labels beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from api_schemas.config import DataConfig
from common.errors import ConfigError, InputError
from embeddings.files import read_embeddings
from embeddings.npy import read_array
from training.data.items import Items
from training.data.mapped_vectors import Mapped
from training.data.pair_labels import classes_of, holds_pairs
from training.data.tables import LISTS, numbered, other_columns, read_table, text_column


def read_vectors(paths: Sequence[Path], data: DataConfig, dimension: int | None = None) -> Items:
    """An embeddings file, or a ``.npy`` of vectors that stay on disk: inputs are float32 [n, d].

    Args:
        dimension: what d must be, where a model is there already.

    Raises:
        InputError: what ``read_embeddings`` refuses, or another dimension.
    """
    if len(paths) != 1:
        raise ConfigError(f"data.path: kind 'embeddings' takes one file, found {len(paths)}.")
    if paths[0].suffix == ".npy":
        items = _mapped_items(paths[0], data)
    else:
        read = read_embeddings(paths[0])
        items = Items(read.vectors, read.labels, read.ids, read.metadata)
    found = items.inputs.shape[1]
    if dimension not in (None, found):
        raise InputError(f"{paths[0]} has vectors of {found} numbers, {dimension} are trained on.")
    return items


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
        table = pa.table({data.label_column: _label_array(labelled)})
    else:
        table = read_table(labelled, {data.label_column, "id"})
    if holds_pairs(table, data.label_column):
        names, labels = classes_of(table, labelled)
        wrong = [name for name in names if not (name.isdecimal() and int(name) < len(vectors))]
        if wrong:
            raise InputError(f"{labelled}: '{wrong[0]}' is no row of {path}, which has {len(vectors)}.")
        return Items(vectors.subset(names.astype(np.int64)), labels, names.astype(np.str_))
    if table.num_rows != len(vectors):
        raise InputError(f"{labelled} has {table.num_rows} rows, {path} has {len(vectors)}.")
    labels = text_column(table, data.label_column, labelled)
    ids = text_column(table, "id", labelled) if "id" in table.column_names else numbered(len(labels))
    return Items(vectors, labels, ids, other_columns(table, {data.label_column, "id"}, labelled))


def _label_array(path: Path) -> NDArray[Any]:
    labels = read_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(f"{path} must hold one integer or text a row, found {labels.dtype} {labels.shape}.")
    return labels
