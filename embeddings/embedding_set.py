"""A set of labelled unit vectors, from which every figure and every decision is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.array_types import Bools, Float64s, Int64s, Texts, UnitVectors
from common.errors import InputError
from common.label_spelling import is_blank
from embeddings.python_objects import convert_to_column, convert_to_matrix, read_labels

PLAIN_KINDS = "biufUM"  # of numpy's types, that a metadata column has
UNIT_TOLERANCE = 1e-6  # of the squared length; rows this close keep their bits, so that they find themselves


@dataclass(frozen=True, eq=False)
class EmbeddingSet:
    """Labelled unit vectors with ids and metadata columns, one row an item.

    Attributes:
        vectors: float32 [n, d], unit rows.
        labels: text [n]; an integer label is its decimal digits.
        ids: text [n], distinct.
        metadata: further columns by name, each of length n: text, numbers, booleans, datetime64 in UTC, or
            lists of text or of numbers as objects; a ``numpy.ma.MaskedArray`` where a value is missing, so
            that whole numbers keep their digits. Whatever else is given is converted.
    """

    vectors: UnitVectors
    labels: Texts
    ids: Texts
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", convert_columns(self.metadata))

    @classmethod
    def from_arrays(
        cls,
        embeddings: Any,
        labels: Any,
        ids: Any = None,
        metadata: Mapping[str, Any] | None = None,
        source: str = "embeddings",
        *,
        are_unit: bool = False,
    ) -> EmbeddingSet:
        """Check arrays, lists, tensors, Series or Arrow columns (``embeddings.python_objects``).

        Args:
            embeddings: float [n, d], any length of row but zero; normalised here in float64.
            labels: [n], integers or text, none missing or empty.
            ids: [n], distinct; row numbers unless given.
            metadata: columns of length n.
            source: what error messages call the data, e.g. the file's name.
            are_unit: the embeddings were normalised before.

        Raises:
            InputError: wrong shape or length, NaN, infinity, a zero row, repeated ids; names the row.
        """
        vectors = np.asarray(embeddings) if are_unit else normalise_rows(embeddings, source)
        n = len(vectors)
        texts = _convert_to_text(labels, n, "labels", source)
        names = _write_digits(np.arange(n)) if ids is None else _convert_to_text(ids, n, "ids", source)
        if ids is not None:
            distinct, counts = np.unique(names, return_counts=True)
            if len(distinct) != n:
                repeated = distinct[counts > 1][0]
                raise InputError(
                    f"{source}: the id '{repeated}' occurs {counts.max()} times; ids must be distinct."
                )
        columns = convert_columns(metadata or {}, source)
        for name, column in columns.items():
            if len(column) != n:
                raise InputError(f"{source}: column '{name}' has {len(column)} values for {n} embeddings.")
        return cls(vectors, texts, names, columns)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def _classes_and_codes(self) -> tuple[Texts, Int64s]:
        classes, codes = np.unique(self.labels, return_inverse=True)
        return classes, codes.astype(np.int64)

    @property
    def classes(self) -> Texts:
        """The distinct labels, sorted as text."""
        return self._classes_and_codes[0]

    @property
    def codes(self) -> Int64s:
        """int64 [n]: each row's position in ``classes``."""
        return self._classes_and_codes[1]

    def subset(self, rows: NDArray[Any] | Sequence[int]) -> EmbeddingSet:
        """The rows of an index array or boolean mask, in that order."""
        selected = np.asarray(rows)
        columns = {name: column[selected] for name, column in self.metadata.items()}
        return EmbeddingSet(self.vectors[selected], self.labels[selected], self.ids[selected], columns)

    def select_classes(self, classes: ArrayLike) -> EmbeddingSet:
        """The items of the named classes, in their order here."""
        return self.subset(np.isin(self.labels, np.asarray(classes, dtype=np.str_)))


def convert_columns(columns: Mapping[str, Any], source: str = "metadata") -> dict[str, NDArray[Any]]:
    """Metadata columns by name as numpy arrays; raises InputError for one that holds no plain values."""
    converted = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in PLAIN_KINDS:
            converted[name] = _mask_missing(values)
            continue
        from embeddings.arrow_columns import convert_metadata, to_numpy  # which plain arrays do without

        what = f"column '{name}'"
        given = convert_to_column(values, what, source)
        column = convert_metadata(given, what, source)
        if column is None:
            raise InputError(
                f"{source}: {what} must hold text, numbers, booleans, times, or lists of text or of numbers, "
                f"found {given.type}."
            )
        converted[name] = to_numpy(column, what, source)
    return converted


def read_single_values(
    metadata: Mapping[str, NDArray[Any]], column: str, describe_absence: Callable[[str], str]
) -> NDArray[Any]:
    """A metadata column [n] with one value a row.

    Args:
        describe_absence: the sentence for data without the column, given the names that there are.

    Raises:
        InputError: no such column, or one of lists.
    """
    if column not in metadata:
        raise InputError(describe_absence(", ".join(sorted(metadata)) or "none"))
    check_single_values(metadata[column], column)
    return metadata[column]


def check_single_values(column: NDArray[Any], name: str) -> None:
    """Raises InputError for a metadata column of lists, of which no row has one value."""
    if column.dtype.kind == "O":
        raise InputError(f"The column '{name}' must hold one value a row, found lists: name another column.")


def _mask_missing(values: NDArray[Any]) -> NDArray[Any]:
    """With NaN and NaT masked."""
    missing = values != values if values.dtype.kind in "fM" else np.zeros(0, dtype=bool)
    missing = np.ma.getdata(missing)
    return np.ma.MaskedArray(values, missing | np.ma.getmaskarray(values)) if missing.any() else values


def normalise_rows(embeddings: Any, source: str = "embeddings", first_row: int = 0) -> UnitVectors:
    """Float32 [n, d] unit rows from any real [n, d]; raises InputError naming the first bad row.

    Rows that are of length one in float32 keep their bits, so that what was normalised and written is read
    back equal, hash and all. ``first_row`` is the number of the first row, where rows come block by block.
    """
    raw = convert_to_matrix(embeddings, source)
    if raw.ndim != 2 or raw.shape[0] == 0 or raw.shape[1] == 0:
        raise InputError(f"{source}: expected a non-empty [N, D] array, found shape {raw.shape}.")
    if raw.dtype.kind not in "fiu":
        raise InputError(f"{source}: vectors must be numbers, found {raw.dtype}.")
    squares = np.einsum(
        "ij,ij->i", raw, raw, dtype=np.float64, casting="same_kind" if raw.dtype.kind == "f" else "unsafe"
    )
    bad = np.flatnonzero(~np.isfinite(squares))
    if bad.size:
        what = "NaN" if np.isnan(raw[bad[0]]).any() else "an infinite or too large value"
        raise InputError(
            f"{source}: row {first_row + bad[0]} of the embeddings holds {what} ({bad.size} such rows)."
        )
    zero = np.flatnonzero(squares == 0)
    if zero.size:
        raise InputError(
            f"{source}: row {first_row + zero[0]} of the embeddings is a zero vector, which has no direction "
            f"({zero.size} such rows)."
        )
    rows = np.ascontiguousarray((raw / np.sqrt(squares)[:, None]).astype(np.float32))
    near = np.flatnonzero(np.abs(squares - 1.0) <= 2 * UNIT_TOLERANCE)  # float32 may bring them nearer
    given = raw[near].astype(np.float32)
    is_unit = np.abs(np.einsum("ij,ij->i", given, given, dtype=np.float64) - 1.0) <= UNIT_TOLERANCE
    rows[near[is_unit]] = given[is_unit]
    return rows


def normalise_queries(vectors: Any, dim: int, what: str = "query") -> UnitVectors:
    """Float32 [q, d] unit rows from any real [q, d] or [d]; raises InputError naming the first bad row.

    Rows that are already of length one keep their bits, so a query by a stored vector is that vector.
    """
    raw = convert_to_matrix(vectors, what)
    if raw.ndim == 1 and raw.dtype.kind in "fiu":
        raw = raw[None, :]
    if raw.ndim != 2 or raw.shape[0] == 0:
        raise InputError(f"{what}: vectors must be a non-empty [q, {dim}] array, found shape {raw.shape}.")
    if raw.shape[1] != dim:
        raise InputError(f"{what}: the index holds vectors of {dim} numbers, found {raw.shape[1]}.")
    if raw.dtype == np.float32:
        squares: Float64s = np.einsum("ij,ij->i", raw, raw, dtype=np.float64)
        if all(abs(square - 1.0) <= UNIT_TOLERANCE for square in squares.tolist()):
            return np.ascontiguousarray(raw)
    return normalise_rows(raw, what)


def _convert_to_text(values: Any, n: int, what: str, source: str) -> Texts:
    if type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in "iuU":
        texts = values if values.dtype.kind == "U" else _write_digits(values)
        if values.dtype.kind == "U":
            _check_texts(texts, what, source)
    else:
        from embeddings.arrow_columns import check_texts, convert_to_fixed_width

        column = read_labels(values, what, source)
        check_texts(column, what, source)
        texts = convert_to_fixed_width(column, what, source)
    if len(texts) != n:
        raise InputError(f"{source}: {n} embeddings need {n} {what}, found {len(texts)}.")
    return texts


def _write_digits(numbers: NDArray[Any]) -> Texts:
    """Decimal digits, in text no wider than the longest: numpy's own choice takes 84 bytes a number."""
    longest = max(len(str(numbers.min(initial=0))), len(str(numbers.max(initial=0))))
    return numbers.astype(f"<U{longest}")


def _check_texts(texts: Texts, what: str, source: str) -> None:
    """Check labels or ids; raises InputError for one that is empty or no valid text, naming the row."""
    if not len(texts):
        return
    native = np.ascontiguousarray(texts.astype(texts.dtype.newbyteorder("=")))
    rows = native.view(np.uint32).reshape(len(texts), -1)
    # of the few without a plain character each is looked at
    unclear = np.flatnonzero(np.count_nonzero((rows > ord(" ")) & (rows < 0x7F), axis=1) == 0)
    blank: Bools = np.zeros(len(texts), dtype=np.bool_)
    blank[unclear] = [is_blank(text) for text in native[unclear].tolist()]
    checks: dict[str, Bools] = {"is empty: give it a text, or leave the row out": blank}
    checks["holds a NUL character"] = np.asarray(((rows[:, :-1] == 0) & (rows[:, 1:] != 0)).any(axis=1))
    reason = "holds half a character (a lone surrogate), which is not valid Unicode"
    checks[reason] = np.asarray(((rows >= 0xD800) & (rows < 0xE000)).any(axis=1))
    for reason, is_wrong in checks.items():
        if is_wrong.any():
            raise InputError(f"{source}: row {int(is_wrong.argmax())} of {what} {reason}.")


def join_columns(parts: Sequence[NDArray[Any] | None], sizes: Sequence[int]) -> NDArray[Any]:
    """A metadata column of several sets, one after the other; None is a set that lacks it.

    What is missing stays missing (numpy's own ``concatenate`` forgets masks); types that differ become floats
    where these hold all numbers, else text.
    """
    from embeddings.arrow_columns import concatenate_columns, to_numpy

    columns = [None if part is None else convert_to_column(part, "a column", "metadata") for part in parts]
    return to_numpy(concatenate_columns(columns, sizes), "a column", "metadata")


def concatenate(sets: Sequence[EmbeddingSet]) -> EmbeddingSet:
    """One set of all rows, in that order; raises InputError for an id that two of them share.

    A metadata column that some of them lack is missing there.
    """
    names = dict.fromkeys(name for part in sets for name in part.metadata)
    sizes = [len(part) for part in sets]
    columns = {name: join_columns([part.metadata.get(name) for part in sets], sizes) for name in names}
    ids = np.concatenate([part.ids for part in sets])
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) != len(ids):
        raise InputError(
            f"the id '{distinct[counts > 1][0]}' occurs in two of the sets; ids must be distinct."
        )
    return EmbeddingSet(
        np.concatenate([part.vectors for part in sets]),
        np.concatenate([part.labels for part in sets]),
        ids,
        columns,
    )
