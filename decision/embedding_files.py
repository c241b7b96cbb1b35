"""Embeddings on disk: ``.npz`` and ``.npy`` (arrays), ``.parquet`` (a table), read in blocks.

A file may be larger than memory: it is opened, which tells its size, and then read into memory or into a
file that is mapped.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.errors import InputError
from api_schemas.files import write_atomically
from decision.embeddings import EmbeddingSet, unit_rows
from decision.progress import Track, silent

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK_ROWS = 8_192
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EmbeddingFile:
    """An embeddings file whose size and columns are known and whose vectors are still to be read.

    Attributes:
        path: where it is.
        rows: how many embeddings it holds.
        dimension: how many numbers each has.
        columns: ``labels``, perhaps ``ids``, and metadata, each of length ``rows``.
        blocks: reads the embeddings as they are, in blocks [b, d].
    """

    path: Path
    rows: int
    dimension: int
    columns: Columns
    blocks: Callable[[], Iterator[NDArray[Any]]]

    def read(self, store: Path | None = None, track: Track = silent) -> EmbeddingSet:
        """Every row, checked and brought to length one.

        Args:
            store: a ``.npy`` file to write the vectors to; they are mapped from there instead of being
                held in memory.

        Raises:
            InputError: rows that cannot be used.
        """
        shape = (self.rows, self.dimension)
        vectors: NDArray[np.float32] = (
            np.empty(shape, dtype=np.float32)
            if store is None
            else np.lib.format.open_memmap(store, mode="w+", dtype=np.float32, shape=shape)
        )
        done = 0
        for block in track(self.blocks(), "reading", -(-self.rows // BLOCK_ROWS)):
            vectors[done : done + len(block)] = unit_rows(block, str(self.path), first_row=done)
            done += len(block)
        if isinstance(vectors, np.memmap):
            vectors.flush()
        metadata = {name: column for name, column in self.columns.items() if name not in ("labels", "ids")}
        return EmbeddingSet.from_units(
            vectors, self.columns["labels"], self.columns.get("ids"), metadata, source=str(self.path)
        )


def open_embeddings(path: Path, labels: Path | None = None) -> EmbeddingFile:
    """Open an embeddings file.

    ``.npz``: arrays ``embeddings`` [N, D] and ``labels`` [N], optionally ``ids`` and further columns
    of length N. ``.npy``: [N, D], with ``labels`` in a file of their own. ``.parquet``: columns
    ``embedding`` and ``label``, optionally ``id`` and metadata.

    Args:
        path: the file.
        labels: of a ``.npy`` file: a ``.npy`` [N] or a ``.parquet`` with ``label``, perhaps ``id``, metadata.

    Raises:
        InputError: a file is missing, of another kind or damaged.
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


def read_array(path: Path) -> NDArray[Any]:
    """A ``.npy`` file of any shape; raises InputError when it is damaged or holds Python objects."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        reason = _OBJECTS if "allow_pickle" in str(error) else "it is damaged or of another kind"
        raise InputError(f"{path} cannot be read as a plain array: {reason}.") from None


def save_embeddings(items: EmbeddingSet, path: Path) -> None:
    """Write a set as ``.npz``; a crash leaves the old file or none."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        embeddings=items.vectors,
        labels=items.labels,
        ids=items.ids,
        **dict(items.metadata),  # type: ignore[arg-type]
    )
    write_atomically(path, buffer.getvalue())


def _open_npz(path: Path) -> EmbeddingFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            for name in ("embeddings", "labels"):
                if name not in names:
                    raise InputError(
                        f"{path} has no array '{name}'; found {', '.join(sorted(names)) or 'none'}."
                    )
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in names if name != "embeddings"}
            with archive.zip.open("embeddings.npy") as member:
                shape = _array_header(member, path)[0]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        reason = _OBJECTS if "allow_pickle" in str(error) else "it is damaged or of another kind"
        raise InputError(f"{path} cannot be read as an .npz archive of plain arrays: {reason}.") from None
    n = len(arrays["labels"]) if arrays["labels"].ndim else -1
    columns = {
        name: array for name, array in arrays.items() if name in ("labels", "ids") or array.shape == (n,)
    }

    def blocks() -> Iterator[NDArray[Any]]:
        with zipfile.ZipFile(path) as archive, archive.open("embeddings.npy") as member:
            yield from _array_blocks(member, path)

    return EmbeddingFile(path, shape[0], shape[1], columns, blocks)


def _open_npy(path: Path, labels: Path | None) -> EmbeddingFile:
    if labels is None:
        raise InputError(f"{path} holds no labels: give them with --labels, a .npy [N] or a .parquet.")
    if not labels.is_file():
        raise InputError(f"{labels} is not a file: give the labels of {path} as .npy or .parquet.")
    if labels.suffix == ".parquet":
        columns = _columns_of(_parquet(labels), labels, [])
    elif labels.suffix == ".npy":
        columns = {"labels": read_array(labels)}
    else:
        raise InputError(f"{labels} ends in '{labels.suffix}': labels are a .npy or a .parquet.")

    def blocks() -> Iterator[NDArray[Any]]:
        with path.open("rb") as opened:
            yield from _array_blocks(opened, path)

    with path.open("rb") as opened:
        try:
            shape = _array_header(opened, path)[0]
        except (ValueError, EOFError):
            raise InputError(
                f"{path} cannot be read as an array: it is damaged or of another kind."
            ) from None
    return EmbeddingFile(path, shape[0], shape[1], columns, blocks)


def _array_header(stream: IO[bytes], path: Path) -> tuple[tuple[int, int], bool, np.dtype[Any]]:
    """Shape, whether it lies column by column, and type of the array that begins here."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    if dtype.hasobject:
        raise InputError(f"{path} cannot be read as an array of plain numbers: {_OBJECTS}.")
    if len(shape) != 2:
        raise InputError(f"{path}: embeddings must be a non-empty [N, D] array, found shape {shape}.")
    return (shape[0], shape[1]), by_column, dtype


def _array_blocks(stream: IO[bytes], path: Path) -> Iterator[NDArray[Any]]:
    (rows, dimension), by_column, dtype = _array_header(stream, path)
    if by_column:  # no row is whole before the last column is read
        whole = np.frombuffer(stream.read(), dtype=dtype).reshape(dimension, rows).T
        yield from (whole[start : start + BLOCK_ROWS] for start in range(0, rows, BLOCK_ROWS))
        return
    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        size = count * dimension * dtype.itemsize
        try:
            data = stream.read(size)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise InputError(f"{path} is damaged: {error}.") from None
        if len(data) < size:
            raise InputError(f"{path} is damaged: it ends before row {rows - 1}.")
        yield np.frombuffer(data, dtype=dtype).reshape(count, dimension)


_OBJECTS = "it holds Python objects, which are never unpickled; save labels as np.array(labels, dtype=str)"


def _open_parquet(path: Path) -> EmbeddingFile:
    file = _parquet(path)
    if "embedding" not in file.schema_arrow.names:
        raise InputError(
            f"{path} has no column 'embedding'; found {', '.join(file.schema_arrow.names) or 'none'}."
        )
    columns = _columns_of(file, path, ["embedding"])
    first = next(_parquet_blocks(path, 1), np.empty((0, 0)))
    return EmbeddingFile(
        path, file.metadata.num_rows, first.shape[1], columns, lambda: _parquet_blocks(path, BLOCK_ROWS)
    )


def _parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa  # a third of a second that only readers of tables should pay
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.")


def _columns_of(file: pq.ParquetFile, path: Path, besides: list[str]) -> Columns:
    import pyarrow as pa

    names = file.schema_arrow.names
    if "label" not in names:
        raise InputError(f"{path} has no column 'label'; found {', '.join(names) or 'none'}.")
    try:
        table = file.read([name for name in names if name not in besides])
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    ours = {"label": "labels", "id": "ids"}
    return {
        ours.get(name, name): table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names
    }


def _parquet_blocks(path: Path, rows: int) -> Iterator[NDArray[Any]]:
    import pyarrow as pa

    done, dimension = 0, None
    try:
        for batch in _parquet(path).iter_batches(rows, columns=["embedding"]):
            block = _matrix(batch.column(0), path, done, dimension)
            done, dimension = done + len(block), block.shape[1]
            yield block
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _matrix(column: pa.Array, path: Path, first_row: int, dimension: int | None) -> NDArray[Any]:
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
    other = np.flatnonzero(lengths != expected)
    if other.size:
        raise InputError(
            f"{path}: row {first_row + other[0]} has an embedding of {lengths[other[0]]} numbers, "
            f"row 0 of {expected}."
        )
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), expected)
