"""Embedding files: ``.npz`` and ``.npy`` (arrays), ``.parquet`` (a table), read in blocks.

A file may be larger than memory: opening it tells its size; it is then read into memory or into a mapped
file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import InputError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet, normalise_rows
from embeddings.npy import (
    iterate_array_blocks,
    read_array,
    read_array_header,
    read_whole_array,
    report_damage,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK_ROWS = 8_192
ARRAY_NAMES = ("embeddings", "labels", "ids")
_END_OF_ZIP, _MORE_THAN_COUNTED = 22, 0xFFFF  # bytes of a zip's last record; what it says in zip64
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EmbeddingFile:
    """An embeddings file whose size and columns are known and whose vectors are still to be read.

    Attributes:
        columns: ``labels``, perhaps ``ids``, and metadata, each of length ``rows``.
        blocks: reads the embeddings as they are, in blocks [b, d].
    """

    path: Path
    rows: int
    dimension: int
    columns: Columns
    blocks: Callable[[], Iterator[NDArray[Any]]]

    def read(self, store: Path | None = None, track: Track = silent) -> EmbeddingSet:
        """Every row, checked and brought to length one; raises InputError for rows that cannot be used.

        Args:
            store: a ``.npy`` file to write the vectors to; they are mapped from there, not held in memory.
        """
        shape = (self.rows, self.dimension)
        vectors: Float32s = (
            np.empty(shape, dtype=np.float32)
            if store is None
            else np.lib.format.open_memmap(store, mode="w+", dtype=np.float32, shape=shape)
        )
        done = 0
        for block in track(self.blocks(), "reading", -(-self.rows // BLOCK_ROWS)):
            if block.shape[1:] != shape[1:] or done + len(block) > self.rows:
                raise InputError(f"{self.path} is damaged: it holds other rows than it says.")
            vectors[done : done + len(block)] = normalise_rows(block, str(self.path), first_row=done)
            done += len(block)
        if done < self.rows:
            raise InputError(f"{self.path} is damaged: it ends before row {self.rows - 1}.")
        if isinstance(vectors, np.memmap):
            vectors.flush()
        metadata = {name: column for name, column in self.columns.items() if name not in ("labels", "ids")}
        labels, ids = self.columns["labels"], self.columns.get("ids")
        return EmbeddingSet.from_arrays(vectors, labels, ids, metadata, str(self.path), are_unit=True)


def open_embeddings(path: Path, labels: Path | None = None) -> EmbeddingFile:
    """Open an embeddings file; raises InputError when it is missing, of another kind or damaged.

    ``.npz``: arrays ``embeddings`` [N, D] and ``labels`` [N], optionally ``ids`` and further columns
    of length N. ``.npy``: [N, D], with ``labels`` in a file of their own: a ``.npy`` [N], or a ``.parquet``
    with ``label``, perhaps ``id``, metadata. ``.parquet``: columns ``embedding`` and ``label``, optionally
    ``id`` and metadata.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an embeddings file (.npz, .npy or .parquet).")
    if path.suffix not in (".npz", ".npy", ".parquet"):
        raise InputError(f"{path} ends in '{path.suffix}': embeddings files end in .npz, .npy or .parquet.")
    if labels is not None and path.suffix != ".npy":
        raise InputError(f"{path} holds its own labels: a file of labels goes with .npy only.")
    if path.suffix == ".npy":
        opened = _open_npy(path, labels)
    else:
        opened = _open_npz(path) if path.suffix == ".npz" else _open_parquet(path)
    if opened.rows == 0 or opened.dimension == 0:
        raise InputError(f"{path} has no rows.")
    return opened


def read_embeddings(path: Path) -> EmbeddingSet:
    """Read an embeddings file into memory; see ``open_embeddings`` for its kinds and errors."""
    return open_embeddings(path).read()


def save_embeddings(items: EmbeddingSet, path: Path) -> None:
    """Write a set as ``.npz``; a crash leaves the old file or none. Objects in metadata become text."""
    check_metadata_names(items.metadata, str(path))
    arrays = {"embeddings": items.vectors, "labels": items.labels, "ids": items.ids, **items.metadata}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            plain = array.astype(np.str_) if array.dtype.kind in "OT" else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, plain, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def check_metadata_names(columns: Iterable[str], source: str) -> None:
    """Raises InputError for a metadata column with the name of an array that every embeddings file has."""
    for name in ARRAY_NAMES:
        if name in columns:
            raise InputError(
                f"{source}: a metadata column cannot be called '{name}', as the {name} of an embeddings file "
                "are: rename it."
            )


def _open_npz(path: Path) -> EmbeddingFile:
    kind = "an .npz archive of plain arrays"
    with report_damage(path, kind), zipfile.ZipFile(path) as archive:
        _check_member_count(archive, path)
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in ("embeddings", "labels"):
            if name not in members:
                raise InputError(
                    f"{path} has no array '{name}'; found {', '.join(sorted(members)) or 'none'}."
                )
        arrays: dict[str, NDArray[Any]] = {}
        for name, info in members.items():
            with archive.open(info) as member:
                if name == "embeddings":
                    shape = _read_matrix_shape(member, info.file_size, path)
                else:
                    arrays[name] = read_whole_array(member, info.file_size, path)
    n = len(arrays["labels"]) if arrays["labels"].ndim else -1
    columns = {
        name: array for name, array in arrays.items() if name in ("labels", "ids") or array.shape == (n,)
    }

    def blocks() -> Iterator[NDArray[Any]]:
        with report_damage(path, kind), zipfile.ZipFile(path) as archive:
            info = archive.getinfo("embeddings.npy")
            with archive.open(info) as member:
                yield from iterate_array_blocks(member, info.file_size, path, BLOCK_ROWS)

    return EmbeddingFile(path, *shape, columns, blocks)


def _check_member_count(archive: zipfile.ZipFile, path: Path) -> None:
    """A damaged list of members may hide some, which its end still counts."""
    with path.open("rb") as opened:
        opened.seek(-_END_OF_ZIP - len(archive.comment), io.SEEK_END)
        counted = int.from_bytes(opened.read(_END_OF_ZIP)[10:12], "little")
    if counted not in (len(archive.infolist()), _MORE_THAN_COUNTED):
        raise InputError(
            f"{path} is damaged: it counts {counted} arrays and lists {len(archive.infolist())}."
        )


def _open_npy(path: Path, labels: Path | None) -> EmbeddingFile:
    if labels is None:
        raise InputError(f"{path} holds no labels: give them with --labels, a .npy [N] or a .parquet.")
    if not labels.is_file():
        raise InputError(f"{labels} is not a file: give the labels of {path} as .npy or .parquet.")
    if labels.suffix == ".parquet":
        columns = _read_columns(_open_parquet_file(labels), labels, [])
    elif labels.suffix == ".npy":
        columns = {"labels": read_array(labels)}
    else:
        raise InputError(f"{labels} ends in '{labels.suffix}': labels are a .npy or a .parquet.")
    with report_damage(path, "an array"), path.open("rb") as opened:
        shape = _read_matrix_shape(opened, path.stat().st_size, path)

    def blocks() -> Iterator[NDArray[Any]]:
        with report_damage(path, "an array"), path.open("rb") as opened:
            yield from iterate_array_blocks(opened, path.stat().st_size, path, BLOCK_ROWS)

    return EmbeddingFile(path, *shape, columns, blocks)


def _read_matrix_shape(stream: IO[bytes], size: int, path: Path) -> tuple[int, int]:
    shape, _, _ = read_array_header(stream, size, path)
    if len(shape) != 2:
        raise InputError(f"{path}: embeddings must be a non-empty [N, D] array, found shape {shape}.")
    return shape[0], shape[1]


def _open_parquet(path: Path) -> EmbeddingFile:
    file = _open_parquet_file(path)
    if "embedding" not in file.schema_arrow.names:
        raise InputError(
            f"{path} has no column 'embedding'; found {', '.join(file.schema_arrow.names) or 'none'}."
        )
    columns = _read_columns(file, path, ["embedding"])
    first = next(_iterate_parquet_blocks(path, 1), np.empty((0, 0)))
    return EmbeddingFile(
        path,
        file.metadata.num_rows,
        first.shape[1],
        columns,
        lambda: _iterate_parquet_blocks(path, BLOCK_ROWS),
    )


def _open_parquet_file(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq  # a third of a second that only readers of tables should pay

    with report_damage(path, "Parquet"):
        return pq.ParquetFile(path, page_checksum_verification=True)


def _read_columns(file: pq.ParquetFile, path: Path, besides: list[str]) -> Columns:
    names = file.schema_arrow.names
    if "label" not in names:
        raise InputError(f"{path} has no column 'label'; found {', '.join(names) or 'none'}.")
    array_names = {"label": "labels", "id": "ids"}
    for name, plural in array_names.items():
        if name in names and plural in names:
            raise InputError(
                f"{path} has the columns '{name}' and '{plural}', only one can be meant: rename one."
            )
    with report_damage(path, "Parquet"):
        table = file.read([name for name in names if name not in besides])
        table.validate(full=True)
        return {
            array_names.get(name, name): table.column(name).to_numpy(zero_copy_only=False)
            for name in table.column_names
        }


def _iterate_parquet_blocks(path: Path, rows: int) -> Iterator[NDArray[Any]]:
    done, dimension = 0, None
    with report_damage(path, "Parquet"):
        for batch in _open_parquet_file(path).iter_batches(rows, columns=["embedding"]):
            batch.validate(full=True)
            block = _convert_to_matrix(batch.column(0), path, done, dimension)
            done, dimension = done + len(block), block.shape[1]
            yield block


def _convert_to_matrix(column: pa.Array, path: Path, first_row: int, dimension: int | None) -> NDArray[Any]:
    """A column of lists as [b, d]; ``dimension`` is that of the rows before, if there were any."""
    import pyarrow as pa

    if not (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    ):
        raise InputError(f"{path}: column 'embedding' must hold lists of numbers, found {column.type}.")
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path}: row {row} has no embedding.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    expected = int(lengths[0]) if dimension is None else dimension
    deviating = np.flatnonzero(lengths != expected)
    if deviating.size:
        raise InputError(
            f"{path}: row {first_row + deviating[0]} has an embedding of {lengths[deviating[0]]} numbers, "
            f"row 0 of {expected}."
        )
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), expected)
