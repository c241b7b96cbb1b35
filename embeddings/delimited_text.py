"""Delimited text: CSV as programs and spreadsheets write it, whatever its encoding, delimiter and quotes.

Nothing is guessed about values: every column is text, as written, and what is not written is missing. What
was found out about the file itself is said.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from common.errors import InputError
from common.progress import Say

HEAD_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20  # that are parsed together; no row is longer
TAIL_BYTES = 1_024  # bytes of a file, in which the last that is no space is looked for
SAMPLED_ROWS = 100
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LIKELY_ENCODINGS = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "gb18030", "mac_roman")
SHOWN_ENCODINGS = 3
_UNPACK, _SAVE = "unpack it", "save the sheet as 'CSV UTF-8'"
_PAGE = "is a web page, as a download that needs a sign-in gives: download the file itself"
# by its first bytes what a file is whose name says text
_SIGNATURES = {
    b"\x1f\x8b": f"is compressed (gzip): {_UNPACK}",
    b"BZh": f"is compressed (bzip2): {_UNPACK}",
    b"\xfd7zXZ": f"is compressed (xz): {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"is compressed (zstd): {_UNPACK}",
    b"PK\x03\x04": f"is a workbook (.xlsx) or another zip archive: {_SAVE}, or {_UNPACK}",
    b"\xd0\xcf\x11\xe0": f"is a workbook (.xls): {_SAVE}",
    b"PAR1": "is a Parquet file: let its name end in .parquet",
    b"ARROW1": "is an Arrow file: write it as .parquet",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file: run `git lfs pull`",
    b"<!doctype html": _PAGE,
    b"<!DOCTYPE html": _PAGE,
    b"<html": _PAGE,
}


@dataclass(frozen=True)
class Dialect:
    """How a file of delimited text is written.

    Attributes:
        encoding: a codec's name.
        delimiter: one character.
        names: the header's, of every column; empty for a column that the header leaves out.
        rows_before: lines before the header.
        escape: the character before a quote inside quotes, where quotes are not doubled.
        quotes_texts: all texts are in quotes, so that NA without them is missing, as R writes it.
    """

    encoding: str
    delimiter: str
    names: list[str]
    rows_before: int
    escape: str | None
    quotes_texts: bool


def detect_encoding(path: Path, given: str | None = None) -> str:
    """The encoding that a file's first bytes show, ``utf-8`` where they show none.

    Raises InputError for a given one that does not exist, and for a file that is no text.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    _check_is_text(head, path)
    if given is not None:
        try:
            return codecs.lookup(given).name
        except LookupError:
            raise InputError(
                f"data.encoding: there is no encoding '{given}'; e.g. utf-8, cp1250, cp1252 or shift_jis."
            ) from None
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    if b"\0" in head:  # UTF-16 without a mark: every second byte of Latin text is zero
        zeros = [head[start::2].count(0) for start in (0, 1)]
        if max(zeros) > len(head) // 8:
            return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def _check_is_text(head: bytes, path: Path) -> None:
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise InputError(f"{path} {what}.")


def read_delimited(path: Path, given_encoding: str | None, say: Say) -> tuple[pa.Table, str]:
    """A file of delimited text as a table of text columns, null where nothing is written; its delimiter.

    Rows without any value are left out.

    Raises:
        InputError: no header, rows of several lengths, a quote left open, text that is not in the encoding.
    """
    dialect = _sniff(path, detect_encoding(path, given_encoding))
    try:
        table = pyarrow.csv.read_csv(path, **_build_options(dialect))
    except (pa.ArrowInvalid, OSError, UnicodeError) as error:
        raise _explain(error, path, dialect) from None
    _check_end(table, path, dialect, table.num_rows)
    _say_dialect(path, dialect, say)
    table, count = _drop_empty_rows(table.rename_columns(dialect.names))
    _say_dropped(path, count, say)
    return table, dialect.delimiter


def iterate_delimited(path: Path, given_encoding: str | None, say: Say) -> tuple[str, Iterator[pa.Table]]:
    """The delimiter, and what ``read_delimited`` reads in blocks of which one at a time is in memory: at
    least one, perhaps without rows."""
    dialect = _sniff(path, detect_encoding(path, given_encoding))
    return dialect.delimiter, _iterate_blocks(path, dialect, say)


def _iterate_blocks(path: Path, dialect: Dialect, say: Say) -> Iterator[pa.Table]:
    n = n_dropped = 0
    try:
        reader = pyarrow.csv.open_csv(path, **_build_options(dialect))
        last = reader.schema.empty_table()
        yield last.rename_columns(dialect.names)
        for batch in reader:
            last = pa.Table.from_batches([batch])
            n += len(last)
            kept, count = _drop_empty_rows(last.rename_columns(dialect.names))
            n_dropped += count
            yield kept
    except (pa.ArrowInvalid, OSError, UnicodeError) as error:
        raise _explain(error, path, dialect) from None
    _check_end(last, path, dialect, n)
    _say_dialect(path, dialect, say)
    _say_dropped(path, n_dropped, say)


def _build_options(dialect: Dialect) -> dict[str, Any]:
    numbers = [str(number) for number in range(len(dialect.names))]
    missing = ["", "\\N", *(["NA"] if dialect.quotes_texts else [])]
    return {
        "read_options": pyarrow.csv.ReadOptions(
            block_size=BLOCK_BYTES,
            column_names=numbers,
            skip_rows=dialect.rows_before,
            skip_rows_after_names=1,
            encoding="utf8" if dialect.encoding in ("utf-8", "utf-8-sig") else dialect.encoding,
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter,
            newlines_in_values=True,  # without, a block of the file may end in the middle of a text
            escape_char=dialect.escape or False,
            double_quote=dialect.escape is None,
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(numbers, pa.large_string()),
            null_values=missing,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }


def _check_end(table: pa.Table, path: Path, dialect: Dialect, n: int) -> None:
    """Check that the last of n rows, which the table ends with, closes its quotes."""
    if table.num_rows and _has_open_quote(table, path, dialect):
        raise InputError(
            f"{path}: row {n - 1} opens a quote that nothing closes, so that all rows after it "
            "are one text: close it."
        )


def _say_dialect(path: Path, dialect: Dialect, say: Say) -> None:
    found = []
    if dialect.delimiter != ",":
        found.append(f"columns are separated by {DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))}")
    if dialect.encoding not in ("utf-8", "utf-8-sig"):
        found.append(f"the encoding is {dialect.encoding}")
    if found:
        say(f"{path}: {' and '.join(found)}.")


def _open_text(path: Path, encoding: str) -> IO[str]:
    return path.open(encoding=encoding, newline="")


def _sniff(path: Path, encoding: str) -> Dialect:
    try:
        with _open_text(path, encoding) as file:
            rows_before, first = 0, file.readline(HEAD_BYTES)
            while first and not first.strip("\r\n\ufeff "):
                rows_before, first = rows_before + 1, file.readline(HEAD_BYTES)
    except UnicodeError as error:
        raise _explain(error, path, Dialect(encoding, ",", [], 0, None, False)) from None
    if not first:
        raise InputError(f"{path} has no rows.")
    announced = re.fullmatch("sep=(.)", first.strip("\r\n\ufeff"), re.IGNORECASE)
    delimiters = list(DELIMITERS) if announced is None else [announced[1]]
    rows_before += announced is not None
    candidates = []
    for escape in (None, "\\"):
        for order, delimiter in enumerate(delimiters):
            records = list(
                islice(_iterate_records(path, encoding, rows_before, delimiter, escape), SAMPLED_ROWS)
            )
            widths = {len(record) for record in records[1:]}
            width = len(records[0]) if records else 0
            is_regular = widths <= {width} or (width >= 1 and widths == {width + 1})
            candidates.append(
                ((width > 1 and is_regular, escape is None, width, -order), delimiter, escape, records)
            )
        if any(rank[0] for rank, *_ in candidates):
            break
    _, delimiter, escape, records = max(candidates, key=lambda candidate: candidate[0])
    names = [name.strip().lstrip("\ufeff").strip() for name in (records[0] if records else [])]
    rows = records[1:]
    if rows and {len(row) for row in rows} == {len(names) + 1}:
        first_values = {row[0] for row in rows}
        if all(row[-1] == "" for row in rows):  # spreadsheets end rows with a delimiter
            names = [*names, ""]
        elif len(first_values) == len(rows) and all(value.isdecimal() for value in first_values):
            names = ["", *names]  # R's write.table names no column of row names
    with _open_text(path, encoding) as file:
        header = [file.readline(HEAD_BYTES) for _ in range(rows_before + 1)][-1].lstrip("\ufeff").strip()
    quoted = [part.strip() for part in header.split(delimiter)]
    quotes_texts = all(part.startswith('"') and part.endswith('"') and len(part) > 1 for part in quoted)
    return Dialect(encoding, delimiter, names, rows_before, escape, quotes_texts)


def _iterate_records(
    path: Path, encoding: str, rows_before: int, delimiter: str, escape: str | None
) -> Iterator[list[str]]:
    """The records that a sample holds, without empty ones; ends early where they cannot be read."""
    with _open_text(path, encoding) as file:
        for _ in range(rows_before):
            file.readline(HEAD_BYTES)
        reader = csv.reader(file, delimiter=delimiter, doublequote=escape is None, escapechar=escape)
        try:
            yield from (record for record in reader if record)
        except (csv.Error, UnicodeError):
            return


def _drop_empty_rows(table: pa.Table) -> tuple[pa.Table, int]:
    """The rows with a value, and how many have none."""
    is_empty = None
    for column in table.columns:
        nulls = pc.is_null(column)
        is_empty = nulls if is_empty is None else pc.and_(is_empty, nulls)
        if not pc.any(is_empty).as_py():
            return table, 0
    count = pc.sum(is_empty).as_py() or 0
    return (table.filter(pc.invert(is_empty)) if count else table), count


def _say_dropped(path: Path, count: int, say: Say) -> None:
    if count:
        say(f"{path}: {count} rows without a value are left out.")


def _has_open_quote(table: pa.Table, path: Path, dialect: Dialect) -> bool:
    """Whether the last text has line breaks, as only quoted ones have, and no quote ends it."""
    last = table.column(table.num_columns - 1)[-1].as_py()
    if not isinstance(last, str) or "\n" not in last:
        return False
    with path.open("rb") as file:
        file.seek(-min(TAIL_BYTES, path.stat().st_size // 4 * 4), os.SEEK_END)
        encoding = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(dialect.encoding, dialect.encoding)
        written = file.read().decode(encoding, errors="replace").rstrip()
    return bool(written) and not written.endswith('"')


def _explain(error: Exception, path: Path, dialect: Dialect) -> InputError:
    reason = str(error).splitlines()[0]
    if "straddling" in reason and path.stat().st_size < BLOCK_BYTES:
        return InputError(f"{path} has no rows.")
    if "straddling" in reason:
        return InputError(
            f"{path} has a row of more than 1 MiB: close a quote that is left open, or write the table "
            "as .parquet."
        )
    undecodable = _find_undecodable(path, dialect.encoding)
    if undecodable is not None:
        number, line = undecodable
        return InputError(
            f"{path}: line {number} is not in {dialect.encoding}: save the file in UTF-8 (a spreadsheet "
            f"calls it 'CSV UTF-8'), or say its encoding{_show_readings(line)}."
        )
    if "Expected" in reason and "columns, got" in reason:
        what = DELIMITERS.get(dialect.delimiter, dialect.delimiter)
        return InputError(
            f"{path} cannot be read as a table with columns separated by {what}: {reason.rstrip('.')}; put "
            "texts that hold the separator into double quotes."
        )
    return InputError(f"{path} cannot be read as a table: {reason.rstrip('.')}.")


def _find_undecodable(path: Path, encoding: str) -> tuple[int, bytes] | None:
    """Number, from 1, and bytes of the first line that is not in the encoding."""
    if encoding.startswith(("utf-16", "utf-32")):
        try:
            path.read_bytes().decode(encoding)
        except UnicodeError as error:
            start = getattr(error, "start", 0)
            return path.read_bytes()[:start].count(b"\n") + 1, b""
        return None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number, line
    return None


def _show_readings(line: bytes) -> str:
    """How some encodings would read a line that is not UTF-8, for a person to tell which one is right."""
    start = next((at for at, byte in enumerate(line) if byte > 127), 0)
    part = line[max(0, start - 12) : start + 12]
    readings: dict[str, str] = {}
    for name in LIKELY_ENCODINGS:
        try:
            text = part.decode(name).strip()
        except UnicodeError:
            continue
        if text and text.isprintable() and text not in readings.values():
            readings[name] = text
    likely = sorted(readings, key=lambda name: sum(_is_strange(character) for character in readings[name]))
    shown = [f"'{readings[name]}' with {name}" for name in likely[:SHOWN_ENCODINGS]]
    return f" with data.encoding (it reads {', '.join(shown)})" if shown else " with data.encoding"


def _is_strange(character: str) -> bool:
    """Whether a word hardly holds this character."""
    return not character.isascii() and not character.isalpha()


@contextmanager
def open_decoded(path: Path, given_encoding: str | None) -> Iterator[IO[str]]:
    """A file as text; raises InputError, while it is read, where it is not in its encoding."""
    encoding = detect_encoding(path, given_encoding)
    try:
        with path.open(encoding=encoding) as file:
            yield file
    except UnicodeError as error:
        raise _explain(error, path, Dialect(encoding, ",", [], 0, None, False)) from None
