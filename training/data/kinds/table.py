"""``data.kind: table``: tables whose numeric columns are the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from api_schemas.preprocessing import TableInput
from common.array_types import Float32s
from common.errors import InputError
from embeddings.tables import read_metadata_columns, read_tables
from encoder.inputs.row_input import TablePreprocessing
from training.data import tables
from training.data.items import Items
from training.data.kinds.data_kind import DataKind

N_PLACEHOLDER_COLUMNS = 8


class Table(DataKind[TablePreprocessing]):
    """Raw inputs are float64 [n, columns]; they are stored standardised, float32."""

    def read(self, paths: Sequence[Path], preprocessing: TablePreprocessing | None = None) -> Items:
        """Label, split, group, time and id columns are no input; a model's columns come in its order."""
        data = self.data
        marked = self.split_columns
        table = read_tables(
            paths, {data.label_column, "id"}, names=marked, encoding=data.encoding, say=self.say
        )
        columns = None if preprocessing is None else preprocessing.rule.columns
        if columns is None:
            marked |= {data.label_column, "id"}
        else:
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                raise InputError(f"{paths[0]} has no column '{missing[0]}', which is trained on.")
            marked = set(table.column_names) - set(columns)
        values, names = tables.read_numeric_columns(table, marked, paths[0])
        labels = tables.read_text_column(table, data.label_column, paths[0])
        ids = tables.read_ids(table, paths[0])
        metadata = read_metadata_columns(table, {data.label_column, "id", *names}, paths[0], self.say)
        columns = columns or names
        order = [names.index(name) for name in columns]
        return Items(values[:, order], labels, ids, metadata, tuple(columns))

    def fit_preprocessing(self, train: Items) -> TablePreprocessing:
        """Mean and deviation of each column; a column that does not vary keeps its scale."""
        means, deviations = train.inputs.mean(axis=0), train.inputs.std(axis=0)
        stds = np.where(deviations > 0, deviations, 1.0)
        return TablePreprocessing(
            TableInput(columns=list(train.columns), means=means.tolist(), stds=stds.tolist())
        )

    def compute_likeness(self, items: Items) -> Float32s | None:
        """The standardised columns."""
        return np.asarray(items.inputs, dtype=np.float32)

    def build_placeholder(self) -> TablePreprocessing:
        n = N_PLACEHOLDER_COLUMNS
        columns = [str(number) for number in range(n)]
        return TablePreprocessing(TableInput(columns=columns, means=[0.0] * n, stds=[1.0] * n))
