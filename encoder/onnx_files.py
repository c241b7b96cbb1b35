"""The further files that an ONNX file has its tensors read from, found without loading it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from common.errors import BundleError

# fields of the messages in onnx.proto3 that lead to tensors, and the message that each holds
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}


def list_external_files(path: Path) -> list[str]:
    """The locations of external tensor data that an ONNX file names, sorted, without repetition.

    Raises BundleError if it is no ONNX file.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise BundleError(f"{path} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return sorted(set(_find_locations(content)))
            except (IndexError, ValueError) as error:
                raise BundleError(f"{path} cannot be read as an ONNX file: {error}.") from None


def _find_locations(content: mmap.mmap) -> Iterator[str]:
    waiting = [("model", 0, len(content))]
    while waiting:
        message, start, end = waiting.pop()
        fields = _FIELDS.get(message, {})
        entry: dict[int, bytes] = {}
        for number, first, last in _read_fields(content, start, end):
            if message == "entry":
                entry[number] = content[first:last]
            elif number in fields:
                waiting.append((fields[number], first, last))
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "replace")


def _read_fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Numbers of a message's fields that have a length, with where each begins and ends."""
    while start < end:
        key, start = _read_varint(content, start)
        wire = key & 7
        if wire == _VARINT:
            _, start = _read_varint(content, start)
        elif wire in _FIXED:
            start += _FIXED[wire]
        elif wire == _LENGTH:
            length, start = _read_varint(content, start)
            if length > end - start:
                raise ValueError("a field is longer than the file")
            yield key >> 3, start, start + length
            start += length
        else:
            raise ValueError("a field has an unknown form")


def _read_varint(content: mmap.mmap, start: int) -> tuple[int, int]:
    value = 0
    for number in range(10):
        byte = content[start + number]
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, start + number + 1
    raise ValueError("a number is too long")
