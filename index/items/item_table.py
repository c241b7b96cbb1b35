"""The items of a gallery in row order: ids, labels, metadata and local densities, as columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.array_types import Bools, Float32s, Int32s, RowIndices, Texts
from common.errors import BundleError
from embeddings.arrow_columns import compute_nanoseconds, is_instants, list_values
from embeddings.embedding_set import EmbeddingSet
from embeddings.list_columns import is_lists, split_lists
from index.items.columns import LIST_KINDS, Column, ColumnKind, FieldUse, ListColumn
from index.items.metadata import MetadataValue, build_metadata_column, is_reserved
from index.items.value_columns import TakeValues, TextColumn, build_take

DENSITY_PREFIX = "_density_"


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Columns of a gallery, one row an item.

    Attributes:
        ids: distinct texts.
        label_codes: int32 [n], positions in ``classes``.
        classes: the distinct labels, sorted as text.
        rank: int32 [n], each row's position when ids are sorted as text; ties in similarity go by it.
        node: int32 [n], the engine's node of each row.
        side: bool [n], rows that are compared with every query because the engine misses them.
        densities: float32 [n] local densities by the name of the score they belong to.
        metadata: an Arrow table of the further columns.
    """

    ids: TextColumn
    label_codes: Int32s
    classes: list[str]
    rank: Int32s
    node: Int32s
    side: Bools
    densities: Mapping[str, Float32s]
    metadata: pa.Table
    _lock: Lock = field(default_factory=Lock, repr=False)
    _columns: dict[str, Column | ListColumn] = field(default_factory=dict, repr=False)

    @classmethod
    def from_set(
        cls,
        items: EmbeddingSet,
        node: RowIndices,
        side: Bools,
        densities: Mapping[str, Float32s] | None = None,
    ) -> ItemTable:
        """Columns of a labelled set; raises InputError for metadata that is no plain column."""
        ids = pa.array(items.ids, type=pa.large_string())
        names = list(items.metadata)
        arrays = [build_metadata_column(name, items.metadata[name]) for name in names]
        return cls(
            ids=TextColumn(ids),
            label_codes=items.codes.astype(np.int32),
            classes=items.classes.tolist(),
            rank=_rank_ids(ids),
            node=node.astype(np.int32),
            side=side,
            densities=densities or {},
            metadata=pa.table(dict(zip(names, arrays, strict=True))),
        )

    def __len__(self) -> int:
        return len(self.label_codes)

    @cached_property
    def _by_rank(self) -> Int32s:
        order = np.empty(len(self), dtype=np.int32)
        order[self.rank] = np.arange(len(self), dtype=np.int32)
        return order

    def _get_id_at(self, position: int) -> str:
        return self.ids[int(self._by_rank[position])]

    def get_rows_after(self, item_id: str, limit: int) -> list[int]:
        """The next rows in the order of their ids, after a text that need not be one of them."""
        start = bisect_right(range(len(self)), item_id, key=self._get_id_at)
        return [int(row) for row in self._by_rank[start : start + limit]]

    def get_row(self, item_id: str) -> int | None:
        """The row of an id, or None."""
        low = bisect_left(range(len(self)), item_id, key=self._get_id_at)
        if low < len(self) and self.ids[self._by_rank[low]] == item_id:
            return int(self._by_rank[low])
        return None

    @cached_property
    def _by_class(self) -> tuple[RowIndices, RowIndices]:
        rows = np.argsort(self.label_codes, kind="stable")
        return rows, np.searchsorted(self.label_codes[rows], np.arange(len(self.classes) + 1))

    def get_code(self, label: str) -> int | None:
        """The position of a label among the classes, or None."""
        code = bisect_left(self.classes, label)
        return code if code < len(self.classes) and self.classes[code] == label else None

    def build_labels(self) -> Texts:
        """Text [n]: the label of each row."""
        return np.array(self.classes, dtype=np.str_)[self.label_codes]

    def get_rows_of_class(self, code: int) -> RowIndices:
        rows, starts = self._by_class
        return rows[starts[code] : starts[code + 1]]

    @cached_property
    def _metadata_names(self) -> list[str]:
        return list(self.metadata.column_names)

    @cached_property
    def _metadata_columns(self) -> list[tuple[str, pa.ChunkedArray]]:
        return list(zip(self.metadata.column_names, self.metadata.columns, strict=True))

    def get_metadata(self, row: int) -> dict[str, MetadataValue]:
        """The metadata of a row, without the fields it lacks."""
        return self.take_metadata(np.array([row]))[0]

    @cached_property
    def _takes(self) -> list[TakeValues]:
        return [build_take(column) for _, column in self._metadata_columns]

    def take_metadata(self, rows: RowIndices) -> list[dict[str, MetadataValue]]:
        """The metadata of rows, int64 [m], each without the fields it lacks."""
        names = self._metadata_names
        if not names:
            return [{} for _ in range(len(rows))]
        return _join_fields(names, [take(rows) for take in self._takes])

    def get_metadata_block(self, start: int, length: int) -> list[dict[str, MetadataValue]]:
        """The metadata of ``length`` consecutive rows."""
        if not self._metadata_names:
            return [{} for _ in range(length)]
        columns = [list_values(column.slice(start, length)) for _, column in self._metadata_columns]
        return _join_fields(self._metadata_names, columns)

    def count_fields(self) -> dict[str, FieldUse]:
        """The metadata fields that any item has."""
        uses = {
            name: FieldUse(_find_kind(column), len(column) - column.null_count)
            for name, column in self._metadata_columns
        }
        return {name: use for name, use in uses.items() if use.items}

    def get_column(self, name: str) -> Column | ListColumn | None:
        """A column indexed for filters, sorted on first use; None if there is none."""
        with self._lock:
            if name not in self._columns:
                if name == "label":
                    self._columns[name] = Column("text", self.classes, self.label_codes)
                elif name in self.metadata.column_names:
                    self._columns[name] = _index_column(self.metadata.column(name))
                else:
                    return None
            return self._columns[name]

    @property
    def column_names(self) -> list[str]:
        """The fields that a filter may name."""
        return ["label", *self.metadata.column_names]

    def check_order(self) -> None:
        """Raises BundleError unless ``rank`` is the order of the ids."""
        if not np.array_equal(self.rank, _rank_ids(self.ids.array)):
            raise BundleError("the column _rank is not the order of the ids.")

    def save(self, path: Path) -> None:
        labels = pa.DictionaryArray.from_arrays(
            pa.array(self.label_codes), pa.array(self.classes, type=pa.large_string())
        )
        columns: dict[str, Any] = {"id": self.ids.array, "label": labels}
        columns |= {name: self.metadata.column(name) for name in self.metadata.column_names}
        columns |= {"_rank": self.rank, "_node": self.node, "_side": self.side}
        columns |= {DENSITY_PREFIX + name: values for name, values in self.densities.items()}
        pq.write_table(pa.table(columns), path)

    @classmethod
    def load(cls, path: Path) -> ItemTable:
        """Read ``items.parquet``; raises BundleError if a column is missing or of another type."""
        try:
            table = pq.read_table(path)
            _check_columns(path, table)
            labels = table.column("label").combine_chunks().dictionary_encode()
            codes, classes = _encode_sorted(labels)
            classes = classes.to_pylist()
            densities = {
                name.removeprefix(DENSITY_PREFIX): table.column(name).to_numpy()
                for name in table.column_names
                if name.startswith(DENSITY_PREFIX)
            }
            return cls(
                ids=TextColumn(_single_chunk(table.column("id"))),
                label_codes=codes,
                classes=classes,
                rank=table.column("_rank").to_numpy(),
                node=table.column("_node").to_numpy(),
                side=table.column("_side").to_numpy(),
                densities=densities,
                metadata=_drop_infinite(
                    table.select([name for name in table.column_names if not is_reserved(name)])
                ).combine_chunks(),
            )
        except (pa.ArrowException, KeyError, OSError, ValueError, AttributeError) as error:
            raise BundleError(f"{path} cannot be read as a table of items: {error}.") from None


def _join_fields(names: list[str], columns: list[list[MetadataValue]]) -> list[dict[str, MetadataValue]]:
    """The fields of each row, without those that it lacks."""
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


_NEEDED = {
    "id": pa.types.is_large_string,
    "label": lambda kind: pa.types.is_large_string(kind) or pa.types.is_dictionary(kind),
    "_rank": pa.types.is_int32,
    "_node": pa.types.is_int32,
    "_side": pa.types.is_boolean,
}


def _check_columns(path: Path, table: pa.Table) -> None:
    """Raises BundleError for a column of another type, a row without a value, and an id twice."""
    for name, is_right in _NEEDED.items():
        column = table.column(name)
        if not is_right(column.type):
            raise BundleError(f"{path}: the column {name} is {column.type}, which no such file has.")
        if column.null_count:
            row = pc.indices_nonzero(column.is_null())[0].as_py()
            raise BundleError(f"{path}: row {row} has no {name.lstrip('_')}.")
    ids = table.column("id")
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        double = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()
        raise BundleError(f"{path}: the id '{double:.100}' occurs twice.")
    if len(ids) and pc.min(pc.utf8_length(ids)).as_py() == 0:
        raise BundleError(f"{path}: an id is empty.")


def _drop_infinite(table: pa.Table) -> pa.Table:
    """Infinity, which an earlier version built in, is missing: JSON cannot say it."""
    for number, name in enumerate(table.column_names):
        column = table.column(name)
        if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
            table = table.set_column(number, name, pc.if_else(pc.is_inf(column), None, column))
    return table


def _rank_ids(ids: pa.Array) -> Int32s:
    order = pc.sort_indices(ids).to_numpy()
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return rank


def _single_chunk(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _encode_sorted(encoded: Any) -> tuple[Int32s, pa.Array]:
    """Codes (-1 for missing) into the sorted distinct values of a dictionary-encoded array."""
    encoded = _single_chunk(encoded) if isinstance(encoded, pa.ChunkedArray) else encoded
    values = encoded.dictionary
    order = pc.sort_indices(values).to_numpy()
    code_of = np.empty(len(values) + 1, dtype=np.int32)
    code_of[order] = np.arange(len(values), dtype=np.int32)
    code_of[-1] = -1
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return code_of[codes], values.take(pa.array(order))


def _index_column(column: pa.ChunkedArray) -> Column | ListColumn:
    kind = _find_kind(column)
    if is_lists(column.type):
        parts = split_lists(column)
        values = parts.values.dictionary_encode()
        codes = values.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return ListColumn(kind, ~parts.missing, values.dictionary.to_pylist(), codes, parts.rows)
    if kind == "boolean":
        codes = column.cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int32)
        return Column(kind, [False, True], codes)
    codes, values = _encode_sorted(column.combine_chunks().dictionary_encode())
    return Column(kind, compute_nanoseconds(values) if kind == "time" else values.to_pylist(), codes)


def _find_kind(column: Any) -> ColumnKind:
    """The kind of an Arrow array of metadata."""
    if is_lists(column.type):
        values = split_lists(column).values
        return LIST_KINDS[_find_kind(values)] if len(values) else "list"
    if pa.types.is_boolean(column.type):
        return "boolean"
    if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
        return "text"
    if is_instants(column.type):
        return "time"
    if pa.types.is_integer(column.type) and len(column) > column.null_count:
        ends = pc.min_max(column).as_py()
        if max(-ends["min"], ends["max"]) > 2**53:
            return "integer"
    return "number"
