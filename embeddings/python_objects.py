"""Python objects as arrays and columns: the one conversion at the edge of the Python surface.

Lists, numpy (masked, structured text, objects), torch (with a gradient, bfloat16, sparse, on a GPU), pandas,
polars, Arrow, SciPy's sparse matrices, and whatever numpy can read. No package is imported for it: an object
is known by its type's name and asked in its own words.
"""

from __future__ import annotations

import math
import numbers
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.tensors import is_tensor, read_tensor

LISTS = (list, tuple, np.ndarray)
NESTED = (*LISTS, dict, set)
_MISSING_TYPES = frozenset(("NAType", "NaTType", "MaskedConstant"))  # of pandas and numpy


def convert_to_matrix(values: Any, source: str) -> NDArray[Any]:
    """Numbers [n, d] of any type that numpy computes with; other shapes are left to the caller.

    Raises:
        InputError: rows of several lengths, a row that is missing, or an object that holds no numbers.
    """
    array = convert_to_array(values, source)
    if array.dtype.kind == "O" and array.ndim == 1:
        array = _stack_rows(array.tolist(), source)
    if array.dtype.kind == "O":
        array = _convert_numbers(array, source)
    return array


def convert_to_array(values: Any, source: str) -> NDArray[Any]:
    """Any object as a numpy array; raises InputError where it has none."""
    if isinstance(values, np.ma.MaskedArray):
        return _fill_masked(values, source)
    if isinstance(values, np.ndarray):
        return _widen(values)
    try:
        return _widen(_ask_object(values, source))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of torch, pandas, CUDA, ...: their errors have no common base
        if isinstance(values, Sequence):
            raise InputError(f"{source}: not a rectangular array of numbers.") from None
        what = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{source}: {type(values).__name__} cannot be read as an array ({what}): give a numpy array."
        ) from None


def convert_to_number(value: Any, what: str) -> float:
    """A number, perhaps as numpy, torch or decimal know it; raises InputError for text and all else."""
    if not isinstance(value, str | bytes | bool | np.bool_):
        try:
            array = convert_to_array(value, what)
            if array.ndim == 0 and array.dtype.kind in "fiuO":
                return float(array.item())
        except (InputError, TypeError, ValueError):
            pass
    raise InputError(f"{what} must be a number, found {value!r:.60}.")


def convert_to_triple(values: Any, what: str) -> tuple[float, float, float]:
    """Three numbers; raises InputError for text and all else."""
    try:
        parts = [] if isinstance(values, str | bytes | dict | set) else list(values)
    except TypeError:
        parts = []
    if len(parts) != 3:
        raise InputError(f"{what} must be three numbers, found {values!r:.60}.")
    first, second, third = (convert_to_number(part, what) for part in parts)
    return first, second, third


def check_choice(value: object, choices: Any, what: str) -> None:
    """Raises InputError for a value that is none of a ``Literal``'s, which may be nested."""
    names = [name for part in get_args(choices) for name in (get_args(part) or (part,))]
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{what} must be one of {', '.join(names)}, found {value!r:.60}.")


def convert_to_column(values: Any, what: str, source: str) -> Any:
    """One value or one list a row as an Arrow array, missing where it is None, NaN, NaT, NA or masked.

    Raises:
        InputError: another shape than [n], values of several types, lists beside single values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from embeddings.arrow_columns import simplify

    if isinstance(values, pa.Array | pa.ChunkedArray):
        return simplify(values)
    if isinstance(values, np.ma.MaskedArray):
        _check_flat(values.shape, what, source)
        mask = np.ma.getmaskarray(values)
        column = convert_to_column(np.ma.getdata(values), what, source)
        nulls = pa.nulls(len(column), column.type)
        return pc.if_else(pa.array(mask), nulls, column)
    package = _name_package(values)
    if package in ("pandas", "polars") or hasattr(values, "__arrow_array__"):
        shape = getattr(values, "shape", (0,))
        _check_flat(shape, what, source)
        try:
            if package == "polars":
                return simplify(values.to_arrow())
            return simplify(pa.array(values, from_pandas=True))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            values = list(values)
    if isinstance(values, str | bytes | dict | set | frozenset):
        raise InputError(f"{source}: {what} must be one value a row, found {type(values).__name__}.")
    if not isinstance(values, list | tuple):
        if isinstance(values, Iterable) and not hasattr(values, "__len__"):
            values = list(values)  # an iterator
        else:
            array = convert_to_array(values, source)
            _check_flat(array.shape, what, source)
            if array.dtype.kind in "biufmM":
                return simplify(pa.array(_to_native(array), from_pandas=True))
            if array.dtype.kind == "U":
                return pa.array(array.tolist(), pa.large_string())
            values = array.tolist()
    values = [_read_value(value) for value in values]
    if any(isinstance(value, LISTS) for value in values):
        return build_list_column(values, what, source)
    return build_column(values, what, source)


def build_list_column(values: Sequence[Any], what: str, source: str) -> Any:
    """Python's lists, None where one is missing, as an Arrow array of lists.

    Raises:
        InputError: lists beside single values, lists in lists, values of several types.
    """
    import pyarrow as pa

    from embeddings.list_columns import ListParts, build_lists

    flat: list[Any] = []
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, LISTS):
            raise InputError(f"{source}: {what} holds lists, but {value!r:.60} in row {row}.")
        inner = [] if value is None else [_read_value(entry) for entry in value]
        if any(isinstance(entry, NESTED) for entry in inner):
            raise InputError(
                f"{source}: {what} must hold one value or one list of values a row, found {value!r:.60} in "
                f"row {row}."
            )
        flat += inner
    column = build_column(flat, what, source) if flat else pa.array([], pa.large_string())
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    return build_lists(
        ListParts(column, lengths, np.array([value is None for value in values], dtype=np.bool_))
    )


def build_column(values: Sequence[Any], what: str, source: str) -> Any:
    """Python's values, None where one is missing, as an Arrow array.

    Raises:
        InputError: values of several types, or lists.
    """
    import pyarrow as pa

    from embeddings.arrow_columns import simplify

    nested = tuple(kind for kind in set(map(type, values)) if issubclass(kind, NESTED))
    if nested:
        row, value = next((row, value) for row, value in enumerate(values) if isinstance(value, nested))
        raise InputError(f"{source}: {what} must hold one value a row, found {value!r:.60} in row {row}.")
    try:
        try:
            return simplify(pa.array(values))
        except OverflowError:
            return pa.array(values, pa.uint64())
    except UnicodeEncodeError:
        raise _build_surrogate_error(values, what, source) from None
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(
            f"{source}: {what} must be all text, all numbers of 64 bits, all booleans or all times: {reason}."
        ) from None


def read_labels(values: Any, what: str, source: str, first: int = 0) -> Any:
    """Labels or ids as large_string, null where one is missing; integers and texts may be mixed.

    Args:
        first: number of the first row in error messages.

    Raises:
        InputError: another shape than [n], or a value that is neither; names the row.
    """
    import pyarrow as pa

    from embeddings.arrow_columns import format_texts

    holds_objects = str(getattr(values, "dtype", "")) in ("object", "O") or isinstance(
        getattr(values, "dtype", None), np.dtypes.StringDType
    )
    if holds_objects and len(getattr(values, "shape", ())) == 1 and not isinstance(values, np.ma.MaskedArray):
        values = list(values)
    if not isinstance(values, list | tuple):
        return format_texts(convert_to_column(values, what, source), what, source)
    kinds = set(map(type, values)) - {type(None)}
    plain = values if kinds <= {str, int} else [_read_value(value) for value in values]
    kinds = set(map(type, plain)) - {type(None)}
    if not kinds <= {str, int}:
        if kinds <= {bool} or kinds <= {date, datetime}:
            return format_texts(build_column(plain, what, source), what, source)
        row = next(row for row, value in enumerate(plain) if type(value) not in (str, int, type(None)))
        raise InputError(
            f"{source}: {what} must be integers or text, found {values[row]!r:.60} in row {first + row}."
        )
    texts = [None if value is None else str(value) for value in plain]
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        raise _build_surrogate_error(texts, what, source, first) from None


def _build_surrogate_error(texts: Sequence[Any], what: str, source: str, first: int = 0) -> InputError:
    for row, text in enumerate(texts, first):
        try:
            str(text).encode()
        except UnicodeEncodeError:
            return InputError(
                f"{source}: row {row} of {what} holds half a character (a lone surrogate), which is not "
                "valid Unicode."
            )
    raise AssertionError("called for texts that can be encoded")


def _read_value(value: Any) -> Any:
    """One value as plain Python has it; None where it is missing."""
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if type(value).__name__ in _MISSING_TYPES:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        is_coarse = np.datetime_data(value.dtype)[0] != "ns"  # as Python has it, date or datetime
        return None if np.isnat(value) else value.item() if is_coarse else value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real | np.floating):
        number = float(value)
        return None if math.isnan(number) else number
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, datetime | date | time | timedelta | uuid.UUID):
        return str(value) if isinstance(value, uuid.UUID) else value
    if hasattr(value, "as_py"):  # an Arrow scalar
        return _read_value(value.as_py())
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # an array or tensor of one number
        return _read_value(value.item())
    return value


def _name_package(values: Any) -> str:
    return type(values).__module__.partition(".")[0]


def _ask_object(values: Any, source: str) -> NDArray[Any]:
    package = _name_package(values)
    if is_tensor(values):
        return read_tensor(values)
    if package == "scipy" and hasattr(values, "toarray"):
        return np.asarray(values.toarray())
    if package == "cupy" and hasattr(values, "get"):
        return np.asarray(values.get())
    if package == "pyarrow":
        return _read_arrow(values, source)
    if package == "pandas" and getattr(values, "ndim", 0) == 2:
        return _read_frame(values, source)
    if package == "pandas":
        array = np.asarray(values.to_numpy())
        return array if array.dtype.kind != "O" else _collect(list(values))
    if package == "polars":
        if hasattr(values, "columns"):
            return np.asarray(values.to_numpy())
        return _read_arrow(values.to_arrow(), source)
    if isinstance(values, list | tuple) and any(
        not isinstance(row, list | tuple | float | int) for row in values
    ):
        return _collect(list(values))
    if isinstance(values, Iterator):
        return _ask_object(list(values), source)
    return np.asarray(values)


def _collect(rows: list[Any]) -> NDArray[Any]:
    """A list of rows or values as an array of them, unread."""
    if any(is_tensor(row) or isinstance(row, np.ndarray | list | tuple) for row in rows):
        array = np.empty(len(rows), dtype=object)
        for number, row in enumerate(rows):
            array[number] = list(row) if isinstance(row, tuple) else row
        return array
    return np.asarray(rows)


def _read_arrow(values: Any, source: str) -> NDArray[Any]:
    import pyarrow as pa

    from embeddings.arrow_columns import is_number, simplify
    from embeddings.list_columns import is_lists
    from embeddings.vector_columns import convert_vectors

    if isinstance(values, pa.Array | pa.ChunkedArray):
        column = simplify(values)
        if is_lists(column.type):
            return convert_vectors(values, source)
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if isinstance(values, pa.Table | pa.RecordBatch):
        if values.num_columns == 1 and is_lists(simplify(values.column(0)).type):
            return convert_vectors(values.column(0), source)
        for name, kind in zip(values.schema.names, values.schema.types, strict=True):
            if not is_number(kind):
                raise InputError(f"{source}: column '{name}' must hold numbers, found {kind}.")
        columns = [simplify(column).cast(pa.float64(), safe=False) for column in values.columns]
        return np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
    return np.asarray(values)


def _read_frame(frame: Any, source: str) -> NDArray[Any]:
    if frame.shape[1] == 1 and str(frame.dtypes.iloc[0]) == "object":
        return _collect(list(frame.iloc[:, 0]))
    kinds = [str(kind) for kind in frame.dtypes]
    if len(set(kinds)) == 1 and kinds[0] in ("float16", "float32", "float64"):
        return np.asarray(frame.to_numpy())
    try:
        return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        for name, kind in zip(frame.columns, kinds, strict=True):
            if not kind.lower().startswith(("int", "uint", "float", "bool")):
                raise InputError(f"{source}: column '{name}' must hold numbers, found {kind}.") from None
        raise


def _widen(array: NDArray[Any]) -> NDArray[Any]:
    """Number types that numpy itself does not know (bfloat16, float8 of ml_dtypes) as float32."""
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        return array.astype(np.float32)
    return array


def _fill_masked(values: Any, source: str) -> NDArray[Any]:
    mask = np.ma.getmaskarray(values)
    if mask.any():
        row = int(np.argwhere(mask)[0][0]) if mask.ndim else 0
        raise InputError(f"{source}: row {row} holds a masked value, which is no number.")
    return np.asarray(np.ma.getdata(values))


def _stack_rows(rows: list[Any], source: str) -> NDArray[Any]:
    """Rows that are lists, arrays or tensors of one length."""
    for row, values in enumerate(rows):
        if _read_value(values) is None:
            raise InputError(f"{source}: row {row} has no embedding.")
    try:
        return np.stack([convert_to_array(values, source) for values in rows])
    except (ValueError, TypeError):
        raise InputError(f"{source}: not a rectangular array of numbers.") from None


def _convert_numbers(array: NDArray[Any], source: str) -> NDArray[Any]:
    """An array of Python's numbers (decimals, fractions, missing ones as NaN) as float64."""
    try:
        if any(isinstance(value, str | bytes) for value in array.ravel()):
            raise TypeError
        return np.array(
            [np.nan if (plain := _read_value(value)) is None else float(plain) for value in array.ravel()]
        ).reshape(array.shape)
    except (TypeError, ValueError):
        raise InputError(f"{source}: vectors must be numbers, found {array.dtype}.") from None


def _check_flat(shape: tuple[int, ...], what: str, source: str) -> None:
    if len(shape) != 1:
        raise InputError(f"{source}: {what} must be one value a row, found shape {tuple(shape)}.")


def _to_native(array: NDArray[Any]) -> NDArray[Any]:
    """In the byte order of this machine, in a type that Arrow has."""
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if native.dtype.kind == "f" and native.dtype.itemsize > 8:
        return native.astype(np.float64)
    if native.dtype.kind in "mM" and np.datetime_data(native.dtype)[0] not in ("D", "s", "ms", "us", "ns"):
        return native.astype(f"{native.dtype.kind}8[s]")
    return native
