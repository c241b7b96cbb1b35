"""Arrays in numpy's file format, alone in a ``.npy`` or in an archive; headers are checked against sizes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError

LAST_CODE_POINT = 0x10FFFF


@contextmanager
def report_damage(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read, as ``kind``, into an InputError that names the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of numpy, zipfile, zlib, tokenize, Arrow: their errors have no common base
        what = textwrap.shorten(str(error) or type(error).__name__, 120)
        reason = what if isinstance(error, _PythonObjects) else f"it is damaged or of another kind ({what})"
        raise InputError(f"{path} cannot be read as {kind}: {reason}.") from None


class _PythonObjects(Exception):
    """An array of Python objects, which only pickle could read."""

    def __str__(self) -> str:
        return "it holds Python objects, never unpickled; save labels as np.array(labels, dtype=str)"


def read_array(path: Path) -> NDArray[Any]:
    """A ``.npy`` file of any shape; raises InputError when it is damaged or holds Python objects."""
    with report_damage(path, "a plain array"), path.open("rb") as stream:
        return read_whole_array(stream, path.stat().st_size, path)


def map_array(path: Path) -> NDArray[Any]:
    """A ``.npy`` file that stays on disk; raises InputError when it is damaged or holds Python objects."""
    with report_damage(path, "a .npy array"), path.open("rb") as stream:
        read_array_header(stream, path.stat().st_size, path)
        return np.lib.format.open_memmap(path, mode="r")


def read_array_header(
    stream: IO[bytes], size: int, path: Path
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored column by column, and type of the array that begins here.

    Raises InputError where they make another size in bytes than ``size``, which includes the header.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    if dtype.hasobject:
        raise _PythonObjects
    expected, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or held > expected:
        raise InputError(
            f"{path} is damaged: an array of shape {shape} takes {expected} bytes, found {held}."
        )
    if held < expected:
        raise InputError(f"{path} is damaged: it ends before row {shape[0] - 1 if shape else 0}.")
    return shape, by_column, dtype


def read_whole_array(stream: IO[bytes], size: int, path: Path) -> NDArray[Any]:
    """The array of any shape that begins here and takes ``size`` bytes."""
    read_array_header(stream, size, path)
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U" and array.size:
        code_points = array.ravel().astype(array.dtype.newbyteorder("=")).view(np.uint32)
        if code_points.max(initial=0) > LAST_CODE_POINT:
            raise InputError(f"{path} is damaged: it holds text that is not valid Unicode.")
    return array


def iterate_array_blocks(
    stream: IO[bytes], size: int, path: Path, rows_at_once: int
) -> Iterator[NDArray[Any]]:
    """The matrix [n, d] that begins here and takes ``size`` bytes, in blocks [b, d]."""
    shape, by_column, dtype = read_array_header(stream, size, path)
    rows, dimension = shape
    if by_column:  # no row is whole before the last column is read
        whole = np.frombuffer(stream.read(), dtype=dtype).reshape(dimension, rows).T
        yield from (whole[start : start + rows_at_once] for start in range(0, rows, rows_at_once))
        return
    for start in range(0, rows, rows_at_once):
        count = min(rows_at_once, rows - start)
        data = stream.read(count * dimension * dtype.itemsize)
        yield np.frombuffer(data, dtype=dtype).reshape(count, dimension)
