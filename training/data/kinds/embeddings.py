"""``data.kind: embeddings``: precomputed vectors, read whole or mapped from a ``.npy`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from api_schemas.preprocessing import VectorInput
from common.array_types import Float32s
from common.errors import ConfigError, InputError
from common.progress import Track
from embeddings.files import EmbeddingFile, open_embeddings
from embeddings.npy import read_array
from embeddings.tables import LIST_SUFFIXES, read_metadata_columns, read_table
from encoder.inputs.row_input import VectorPreprocessing
from training.data.decoded.open_cache import GIB, keep_rows
from training.data.items import Items
from training.data.kinds.data_kind import DataKind
from training.data.mapped_vectors import MappedVectors
from training.data.pair_labels import group_pairs, holds_pairs
from training.data.row_store import RowStore
from training.data.tables import read_ids, read_text_column

PLACEHOLDER_DIM = 8
MOST_NUMBERS = 2**27  # of a part whose near copies are looked for: half a gigabyte


class Embeddings(DataKind[VectorPreprocessing]):
    """Raw inputs are float32 [n, d], or rows that stay on disk; they are stored as they are."""

    suffixes = frozenset((".npz", ".npy"))

    def read(self, paths: Sequence[Path], preprocessing: VectorPreprocessing | None = None) -> Items:
        """An embeddings file, or a ``.npy`` whose vectors are mapped."""
        if len(paths) != 1:
            raise ConfigError(f"data.path: kind 'embeddings' takes one file, found {len(paths)}.")
        if paths[0].suffix == ".npy":
            items = self._read_mapped(paths[0])
        else:
            items = self._read_file(open_embeddings(paths[0], say=self.say))
        dim = items.inputs.shape[1]
        if preprocessing is not None and dim != preprocessing.rule.dim:
            raise InputError(
                f"{paths[0]} has vectors of {dim} numbers, {preprocessing.rule.dim} are trained on."
            )
        return items

    def fit_preprocessing(self, train: Items) -> VectorPreprocessing:
        return VectorPreprocessing(VectorInput(dim=train.inputs.shape[1]))

    def build_placeholder(self) -> VectorPreprocessing:
        return VectorPreprocessing(VectorInput(dim=PLACEHOLDER_DIM))

    def prepare(self, raw: Items, preprocessing: VectorPreprocessing, track: Track) -> Items:
        """Vectors that stay on disk were checked when they were opened."""
        is_elsewhere = isinstance(raw.inputs, RowStore)
        return raw if is_elsewhere else super().prepare(raw, preprocessing, track)

    def compute_likeness(self, items: Items) -> Float32s | None:
        """The vectors; None for so many that they belong on disk."""
        if np.prod(items.inputs.shape, dtype=np.int64) > MOST_NUMBERS:
            return None
        return np.asarray(items.inputs[np.arange(len(items))], dtype=np.float32)

    def _read_file(self, file: EmbeddingFile) -> Items:
        """Into memory up to ``data.memory_gb``, else written once, as unit rows, to a cache on disk."""
        if 4 * file.rows * file.dimension <= self.data.memory_gb * GIB:
            embedded = file.read()
            return Items(embedded.vectors, embedded.labels, embedded.ids, embedded.metadata)
        shape = (file.rows, file.dimension)
        about = file.describe(np.broadcast_to(np.float32(0), shape))
        rows = keep_rows(
            self.data, file.path, {"unit": file.dimension}, shape[1:], shape[0], file.read_blocks, self.say
        )
        return Items(rows, about.labels, about.ids, about.metadata)

    def _read_mapped(self, path: Path) -> Items:
        """``X.npy`` with ``X.labels.npy``, or ``X.labels.csv`` or ``.parquet``, which may have more columns.

        Such a table holds one row a vector, or pairs or triplets of row numbers.
        """
        label_column = self.data.label_column
        candidates = [path.with_suffix(f".labels{suffix}") for suffix in (".npy", *sorted(LIST_SUFFIXES))]
        labels_path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if labels_path is None:
            raise InputError(
                f"{path} has no labels: expected {candidates[0].name}, .csv or .parquet beside it."
            )
        vectors = MappedVectors.open(path)
        if labels_path.suffix == ".npy":
            table = pa.table({label_column: _read_label_array(labels_path)})
        else:
            table = read_table(labels_path, {label_column, "id"}, encoding=self.data.encoding, say=self.say)
        if holds_pairs(table, label_column):
            names, labels = group_pairs(table, labels_path)
            wrong = [name for name in names if not (name.isdecimal() and int(name) < len(vectors))]
            if wrong:
                raise InputError(
                    f"{labels_path}: '{wrong[0]}' is no row of {path}, which has {len(vectors)}."
                )
            return Items(vectors.subset(names.astype(np.int64)), labels, names.astype(np.str_))
        if table.num_rows != len(vectors):
            raise InputError(f"{labels_path} has {table.num_rows} rows, {path} has {len(vectors)}.")
        labels = read_text_column(table, label_column, labels_path)
        metadata = read_metadata_columns(table, {label_column, "id"}, labels_path, self.say)
        return Items(vectors, labels, read_ids(table, labels_path), metadata)


def _read_label_array(path: Path) -> NDArray[Any]:
    labels = read_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(f"{path} must hold one integer or text a row, found {labels.dtype} {labels.shape}.")
    return labels
