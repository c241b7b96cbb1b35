"""Columns of numbers of a Parquet file that is larger than memory, read in blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from common.array_types import Float64s
from common.progress import silent_say
from embeddings.npy import report_damage
from embeddings.tables import NAMELESS, match_names, open_parquet
from training.data.tables import read_numeric_columns

BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class ParquetNumbers:
    """Which columns of a file are numbers, still to be read.

    Attributes:
        written: the names that the file has for them. names: those that are used.
        rows: how many there are.
    """

    path: Path
    written: list[str]
    names: list[str]
    rows: int

    @classmethod
    def find(cls, path: Path, without: Collection[str], columns: Sequence[str] | None) -> ParquetNumbers:
        """All columns but some, which are found whatever the case of their letters; or those of a model, in
        its order."""
        file = open_parquet(path)
        written = [name for name in file.schema_arrow.names if not NAMELESS.fullmatch(name.strip())]
        empty = pa.table({name: pa.nulls(0) for name in written})
        names = match_names(empty, without, path, silent_say).column_names
        kept = [number for number, name in enumerate(names) if name not in without]
        if columns is not None:
            kept = [names.index(name) for name in columns if name in names]
        n = file.metadata.num_rows
        return cls(path, [written[number] for number in kept], [names[number] for number in kept], n)

    def read_blocks(self) -> Iterator[Float64s]:
        """Float64 [b, columns]; raises InputError for what is no number, is missing or infinite."""
        done = 0
        with report_damage(self.path, "Parquet"):
            for batch in open_parquet(self.path).iter_batches(BLOCK_ROWS, columns=self.written):
                batch.validate(full=True)
                table = pa.Table.from_batches([batch]).select(self.written).rename_columns(self.names)
                values, _ = read_numeric_columns(table, (), self.path, done)
                done += len(values)
                yield values
