"""Embeddings on disk: ``.npz`` (arrays) and ``.parquet`` (a table)."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.errors import InputError
from api_schemas.files import write_atomically
from decision.embeddings import EmbeddingSet

if TYPE_CHECKING:
    import pyarrow as pa


def read_embeddings(path: Path) -> EmbeddingSet:
    """Read an embeddings file.

    ``.npz``: arrays ``embeddings`` [N, D] and ``labels`` [N], optionally ``ids`` and further columns
    of length N. ``.parquet``: columns ``embedding`` and ``label``, optionally ``id`` and metadata.

    Raises:
        InputError: the file is missing, of another kind, damaged, or its rows cannot be used.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an embeddings file (.npz or .parquet).")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise InputError(f"{path} ends in '{path.suffix}': embeddings files end in .npz or .parquet.")


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


def _read_npz(path: Path) -> EmbeddingSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        reason = (
            "it holds Python objects, which are never unpickled; save labels as np.array(labels, dtype=str)"
            if isinstance(error, ValueError) and zipfile.is_zipfile(path)
            else "it is damaged or of another kind"
        )
        raise InputError(f"{path} cannot be read as an .npz archive of plain arrays: {reason}.") from None
    for name in ("embeddings", "labels"):
        if name not in arrays:
            raise InputError(f"{path} has no array '{name}'; found {', '.join(sorted(arrays)) or 'none'}.")
    embeddings, labels, ids = arrays.pop("embeddings"), arrays.pop("labels"), arrays.pop("ids", None)
    columns = {name: array for name, array in arrays.items() if array.ndim == 1 and len(array) == len(labels)}
    return EmbeddingSet.from_arrays(embeddings, labels, ids, columns, source=str(path))


def _read_parquet(path: Path) -> EmbeddingSet:
    import pyarrow as pa  # a third of a second that only readers of tables should pay
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.") from None
    for name in ("embedding", "label"):
        if name not in table.column_names:
            raise InputError(
                f"{path} has no column '{name}'; found {', '.join(table.column_names) or 'none'}."
            )
    embeddings = _matrix(table.column("embedding").combine_chunks(), path)
    others = {
        name: table.column(name).to_numpy(zero_copy_only=False)
        for name in table.column_names
        if name not in ("embedding", "label", "id")
    }
    ids = table.column("id").to_numpy(zero_copy_only=False) if "id" in table.column_names else None
    labels = table.column("label").to_numpy(zero_copy_only=False)
    return EmbeddingSet.from_arrays(embeddings, labels, ids, others, source=str(path))


def _matrix(column: pa.Array, path: Path) -> NDArray[Any]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = (
            pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.list_(pa.float32()))
        )
    if not (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    ):
        raise InputError(f"{path}: column 'embedding' must hold lists of numbers, found {column.type}.")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path}: row {row} has no embedding.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, dtype=int)
    if len(lengths) == 0:
        raise InputError(f"{path} has no rows.")
    other = np.flatnonzero(lengths != lengths[0])
    if other.size:
        raise InputError(
            f"{path}: row {other[0]} has an embedding of {lengths[other[0]]} numbers, row 0 of {lengths[0]}."
        )
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), int(lengths[0]))
