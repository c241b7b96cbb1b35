"""``data.kind: table``: tables whose numeric columns are the input."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from api_schemas.preprocessing import TableInput
from common.array_types import Float32s, Float64s
from common.errors import InputError
from common.progress import Track
from embeddings.tables import read_metadata_columns, read_tables
from encoder.inputs.row_input import TablePreprocessing
from training.data import tables
from training.data.decoded.open_cache import GIB, keep_rows
from training.data.decoded.parquet_numbers import ParquetNumbers
from training.data.decoded.row_cache import CachedRows
from training.data.items import Items
from training.data.kinds.data_kind import DataKind
from training.data.row_store import PreparedRows, RowStore, read_blocks

N_PLACEHOLDER_COLUMNS = 8
BLOCK_ROWS = 65_536


class Table(DataKind[TablePreprocessing]):
    """Raw inputs are float64 [n, columns], or rows of a cache; they are stored standardised, float32."""

    def read(self, paths: Sequence[Path], preprocessing: TablePreprocessing | None = None) -> Items:
        """Label, split, group, time and id columns are no input; a model's columns come in its order."""
        data = self.data
        marked = self.split_columns
        columns = None if preprocessing is None else preprocessing.rule.columns
        numbers = self._find_large(paths, marked | {data.label_column, "id"}, columns)
        table = read_tables(
            paths,
            {data.label_column, "id"},
            names=marked,
            besides=numbers.written if numbers else (),
            encoding=data.encoding,
            say=self.say,
        )
        found = [*table.column_names, *(numbers.names if numbers else ())]
        if columns is None:
            marked |= {data.label_column, "id"}
        else:
            missing = [name for name in columns if name not in found]
            if missing:
                raise InputError(f"{paths[0]} has no column '{missing[0]}', which is trained on.")
            marked = set(found) - set(columns)
        values: Any
        if numbers:
            values, names = self._keep(numbers), numbers.names
        else:
            values, names = tables.read_numeric_columns(table, marked, paths[0])
        labels = tables.read_labels(table, data.label_column, paths[0], self.needs_labels)
        ids = tables.read_ids(table, paths[0])
        metadata = read_metadata_columns(table, {data.label_column, "id", *names}, paths[0], self.say)
        columns = columns or names
        if not numbers:
            values = values[:, [names.index(name) for name in columns]]
        return Items(values, labels, ids, metadata, tuple(columns))

    def fit_preprocessing(self, train: Items) -> TablePreprocessing:
        """Mean and deviation of each column; a column that does not vary keeps its scale."""
        means, deviations = _measure_columns(train.inputs)
        stds = np.where(deviations > 0, deviations, 1.0)
        return TablePreprocessing(
            TableInput(columns=list(train.columns), means=means.tolist(), stds=stds.tolist())
        )

    def prepare(self, raw: Items, preprocessing: TablePreprocessing, track: Track) -> Items:
        """Standardised; rows that stay on disk are whenever they are read."""
        if isinstance(raw.inputs, RowStore):
            return replace(raw, inputs=PreparedRows(raw.inputs, preprocessing.prepare))
        return super().prepare(raw, preprocessing, track)

    def compute_likeness(self, items: Items) -> Float32s | None:
        """The standardised columns; None for so many that they stay on disk."""
        return None if isinstance(items.inputs, RowStore) else np.asarray(items.inputs, dtype=np.float32)

    def build_placeholder(self) -> TablePreprocessing:
        n = N_PLACEHOLDER_COLUMNS
        columns = [str(number) for number in range(n)]
        return TablePreprocessing(TableInput(columns=columns, means=[0.0] * n, stds=[1.0] * n))

    def _find_large(
        self, paths: Sequence[Path], without: Collection[str], columns: Sequence[str] | None
    ) -> ParquetNumbers | None:
        """The numbers of a Parquet file that take more than ``data.memory_gb``; None where all are read."""
        if len(paths) != 1 or paths[0].suffix.lower() != ".parquet" or not paths[0].is_file():
            return None
        numbers = ParquetNumbers.find(paths[0], without, columns)
        needed = 8 * numbers.rows * len(numbers.names)
        return numbers if needed > self.data.memory_gb * GIB else None

    def _keep(self, numbers: ParquetNumbers) -> CachedRows:
        shape, rule = (len(numbers.names),), {"columns": numbers.written}
        return keep_rows(
            self.data, numbers.path, rule, shape, numbers.rows, numbers.read_blocks, self.say, np.float64
        )


def _measure_columns(inputs: Any) -> tuple[Float64s, Float64s]:
    """Mean and deviation of each column of [n, columns]; of what stays on disk in two passes."""
    if not isinstance(inputs, RowStore):
        return inputs.mean(axis=0), inputs.std(axis=0)
    means = sum(block.sum(axis=0) for block in read_blocks(inputs, BLOCK_ROWS)) / len(inputs)
    squares = sum(((block - means) ** 2).sum(axis=0) for block in read_blocks(inputs, BLOCK_ROWS))
    return means, np.sqrt(squares / len(inputs))
