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
from common.progress import Say, Track, silent, silent_say
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

BLOCK_ROWS = 8_192
ARRAY_NAMES = ("embeddings", "labels", "ids")
MISSING_SUFFIX = ":missing"  # of the array that marks a column's missing values
LENGTHS_SUFFIX = ":lengths"  # of the array with the length of each list, of a column of lists
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_END_OF_ZIP, _MORE_THAN_COUNTED = 22, 0xFFFF  # bytes of a zip's last record; what it says in zip64
Columns = Mapping[str, Any]


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
        for block in self.read_blocks(track):
            vectors[done : done + len(block)] = block
            done += len(block)
        if isinstance(vectors, np.memmap):
            vectors.flush()
        return self.describe(vectors)

    def read_blocks(self, track: Track = silent) -> Iterator[Float32s]:
        """Every row, checked and brought to length one, in blocks [b, d]; raises InputError as ``read``."""
        done = 0
        for block in track(self.blocks(), "reading", -(-self.rows // BLOCK_ROWS)):
            if block.shape[1:] != (self.dimension,) or done + len(block) > self.rows:
                raise InputError(f"{self.path} is damaged: it holds other rows than it says.")
            yield normalise_rows(block, str(self.path), first_row=done)
            done += len(block)
        if done < self.rows:
            raise InputError(f"{self.path} is damaged: it ends before row {self.rows - 1}.")

    def describe(self, vectors: Float32s) -> EmbeddingSet:
        """Labels, ids and metadata, checked, with unit vectors [rows, dimension] that were read before."""
        metadata = {name: column for name, column in self.columns.items() if name not in ("labels", "ids")}
        labels, ids = self.columns["labels"], self.columns.get("ids")
        return EmbeddingSet.from_arrays(vectors, labels, ids, metadata, str(self.path), are_unit=True)


def open_embeddings(path: Path, labels: Path | None = None, say: Say = silent_say) -> EmbeddingFile:
    """Open an embeddings file; raises InputError when it is missing, of another kind or damaged.

    ``.npz``: arrays ``embeddings`` [N, D] and ``labels`` [N], optionally ``ids`` and further columns
    of length N. ``.npy``: [N, D], with ``labels`` in a file of their own: a ``.npy`` [N], or a table with
    ``label``, perhaps ``id``, metadata. ``.parquet``: columns ``embedding`` and ``label``, optionally ``id``
    and metadata. ``say`` is called with a sentence on what is left out.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an embeddings file (.npz, .npy or .parquet).")
    if path.suffix not in (".npz", ".npy", ".parquet"):
        raise InputError(f"{path} ends in '{path.suffix}': embeddings files end in .npz, .npy or .parquet.")
    if labels is not None and path.suffix != ".npy":
        raise InputError(f"{path} holds its own labels: a file of labels goes with .npy only.")
    if path.suffix == ".npy":
        opened = _open_npy(path, labels, say)
    else:
        opened = _open_npz(path) if path.suffix == ".npz" else _open_parquet(path, say)
    if opened.rows == 0 or opened.dimension == 0:
        raise InputError(f"{path} has no rows.")
    return opened


def read_embeddings(path: Path, say: Say = silent_say) -> EmbeddingSet:
    """Read an embeddings file into memory; see ``open_embeddings`` for its kinds and errors."""
    return open_embeddings(path, say=say).read()


def save_embeddings(items: EmbeddingSet, path: Path) -> None:
    """Write a set as ``.npz``; a crash leaves the old file or none. What is missing is missing when read."""
    check_metadata_names(items.metadata, str(path))
    arrays = {"embeddings": items.vectors, "labels": items.labels, "ids": items.ids}
    for name, column in items.metadata.items():
        arrays |= _write_column(name, column)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _write_column(name: str, column: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A metadata column as arrays: missing floats are NaN, times NaT, all else is marked in a second one.

    Of lists the values stand one after the other, and their lengths in a second array.
    """
    values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if values.dtype.kind == "O":
        lengths = np.array([len(inner) for inner in values], dtype=np.int64)
        flat = [value for inner in values for value in inner]
        marked = {name + MISSING_SUFFIX: mask} if mask.any() else {}
        return {name: np.array(flat or [""]), name + LENGTHS_SUFFIX: lengths, **marked}
    if values.dtype.kind in "fM":
        blank = np.nan if values.dtype.kind == "f" else np.datetime64("NaT")
        return {name: np.where(mask, blank, values).astype(values.dtype)}
    return {name: values, name + MISSING_SUFFIX: mask} if mask.any() else {name: values}


def _read_columns(arrays: dict[str, NDArray[Any]], n: int) -> Columns:
    """Labels, ids and metadata of an archive; what is no column of ``n`` plain values is left out."""
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        owner = name.removesuffix(MISSING_SUFFIX).removesuffix(LENGTHS_SUFFIX)
        if name in ("labels", "ids"):
            columns[name] = array
        elif name + LENGTHS_SUFFIX in arrays:
            lists = _read_lists(array, arrays[name + LENGTHS_SUFFIX], arrays.get(name + MISSING_SUFFIX), n)
            if lists is not None:
                columns[name] = lists
        elif array.shape != (n,) or array.dtype.kind not in "biufUSmM" or (owner != name and owner in arrays):
            continue
        else:
            mask = arrays.get(name + MISSING_SUFFIX, np.zeros(0, dtype=bool))
            columns[name] = np.ma.MaskedArray(array, mask) if mask.shape == (n,) else array
    return columns


def _read_lists(
    values: NDArray[Any], lengths: NDArray[Any], missing: NDArray[Any] | None, n: int
) -> NDArray[Any] | None:
    """A column of lists, None for arrays that are no such column."""
    is_missing = np.zeros(n, dtype=np.bool_) if missing is None else missing
    if (
        values.ndim != 1
        or values.dtype.kind not in "iufU"
        or lengths.shape != (n,)
        or lengths.dtype.kind != "i"
        or lengths.min(initial=0) < 0
        or max(int(lengths.sum()), 1) != len(values)
        or is_missing.shape != (n,)
    ):
        return None
    column = np.empty(n, dtype=object)
    for row, (end, length) in enumerate(zip(np.cumsum(lengths).tolist(), lengths.tolist(), strict=True)):
        column[row] = None if is_missing[row] else values[end - length : end].tolist()
    return column


def check_metadata_names(columns: Iterable[str], source: str) -> None:
    """Raises InputError for a metadata column with the name of an array that every embeddings file has."""
    for name in columns:
        for suffix in (MISSING_SUFFIX, LENGTHS_SUFFIX):
            if name.endswith(suffix):
                raise InputError(
                    f"{source}: the name of a metadata column cannot end in '{suffix}': rename it."
                )
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
    columns = _read_columns(arrays, len(arrays["labels"]) if arrays["labels"].ndim else -1)

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


def _open_npy(path: Path, labels: Path | None, say: Say) -> EmbeddingFile:
    if labels is None:
        raise InputError(f"{path} holds no labels: give them with --labels, a .npy [N] or a table.")
    if not labels.is_file():
        raise InputError(f"{labels} is not a file: give the labels of {path} as .npy or a table.")
    if labels.suffix == ".npy":
        columns: Columns = {"labels": read_array(labels)}
    elif labels.suffix.lower() in TABLE_SUFFIXES:
        from embeddings.tables import read_table

        columns = _name_columns(read_table(labels, ("label", "id"), say=say), labels, say)
    else:
        raise InputError(f"{labels} ends in '{labels.suffix}': labels are a .npy, .parquet, .csv or .jsonl.")
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


def _open_parquet(path: Path, say: Say) -> EmbeddingFile:
    from embeddings.tables import find_column, open_parquet, read_parquet_columns

    file = open_parquet(path)
    names = file.schema_arrow.names
    found = find_column(names, "embedding")
    if found is None:
        raise InputError(f"{path} has no column 'embedding'; found {', '.join(names) or 'none'}.")
    columns = _name_columns(read_parquet_columns(file, path, [found]), path, say)
    first = next(_iterate_parquet_blocks(path, found, 1), np.empty((0, 0)))
    return EmbeddingFile(
        path,
        file.metadata.num_rows,
        first.shape[1],
        columns,
        lambda: _iterate_parquet_blocks(path, found, BLOCK_ROWS),
    )


def _name_columns(table: pa.Table, path: Path, say: Say) -> Columns:
    """The columns of a table of embeddings or labels but the vectors, by the names of the arrays."""
    from embeddings import tables
    from embeddings.arrow_columns import convert_to_texts

    table = tables.match_names(tables.drop_nameless(table, path, say), ("label", "id"), path, say)
    names = table.column_names
    if "label" not in names:
        raise InputError(f"{path} has no column 'label'; found {', '.join(names) or 'none'}.")
    array_names = {"label": "labels", "id": "ids"}
    for name, plural in array_names.items():
        if name in names and plural in names:
            raise InputError(
                f"{path} has the columns '{name}' and '{plural}', only one can be meant: rename one."
            )
    columns: dict[str, Any] = {
        array_names[name]: convert_to_texts(table.column(name), f"column '{name}'", str(path))
        for name in array_names
        if name in names
    }
    return columns | tables.read_metadata_columns(table, array_names, path, say)


def _iterate_parquet_blocks(path: Path, name: str, rows: int) -> Iterator[NDArray[Any]]:
    from embeddings.tables import open_parquet
    from embeddings.vector_columns import convert_vectors

    done, dimension = 0, None
    with report_damage(path, "Parquet"):
        for batch in open_parquet(path).iter_batches(rows, columns=[name]):
            batch.validate(full=True)
            block = convert_vectors(batch.column(0), str(path), f"column '{name}'", done, dimension)
            done, dimension = done + len(block), block.shape[1]
            yield block
