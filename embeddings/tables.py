"""Tables in CSV, Parquet and JSON Lines, read into Arrow: the one reader of every table.

A CSV says no types and JSON no dates. Their text columns are kept as written and marked so; who uses a column
says whether it is labels (then it stays as written), numbers, or metadata (whose type is found).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common.errors import InputError
from common.progress import Say, silent_say
from embeddings.arrow_columns import (
    LARGEST_EXACT_FLOAT,
    convert_metadata,
    format_texts,
    is_text,
    parse_instants,
    simplify,
    to_numpy,
)
from embeddings.delimited_text import read_delimited, read_lines
from embeddings.instants import ISO_8601
from embeddings.npy import report_damage
from embeddings.python_objects import build_column, read_labels

CSV_SUFFIXES = frozenset((".csv", ".tsv"))
JSON_SUFFIXES = frozenset((".jsonl", ".ndjson"))
LIST_SUFFIXES = CSV_SUFFIXES | {".parquet"}
WRITTEN = b"limen.written"  # of a field: where its text comes from, a kind of file that says no types
FROM_CSV, FROM_CSV_WITH_COMMAS, FROM_JSON = b"csv", b"csv with decimal commas", b"json"
NAMELESS = re.compile(r"|__index_level_\d+__|Unnamed: \d+|\.\.\.\d+")  # what pandas and R call a row's name
MISSING_SPELLINGS = ("NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "NaT", "-")
"""In a CSV's column of numbers, booleans or times; in a text they are text."""
UNREAD = pa.list_(pa.null())  # the type that stands for what no column of labels or metadata can hold
DAY_AND_MONTH = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}( .*)?$"
LIKELY_TYPED = re.compile(r"[+-]?[.,]?\d|[+-]?inf|true$|false$", re.IGNORECASE)
LIKELY_TIME = re.compile(r"\d{4}-\d")
ROWS_AT_ONCE = 1_024
SPACES = "\ufeff \t\r\n"  # of a line of JSON that holds nothing
SHEET = "; save the sheet as 'CSV UTF-8'"
CURES = dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), SHEET) | dict.fromkeys(
    (".gz", ".zip", ".bz2", ".xz", ".zst"), "; unpack it"
)
EXTENSION_NAME = b"ARROW:extension:name"


def read_table(
    path: Path,
    texts: Collection[str] = (),
    *,
    names: Collection[str] = (),
    besides: Collection[str] = (),
    encoding: str | None = None,
    say: Say = silent_say,
) -> pa.Table:
    """Read a whole table.

    Args:
        texts: columns that are labels, ids, paths or texts: 01 is another label than 1. They and ``names``
            are found whatever the case of their letters.
        besides: columns of a Parquet file, as it calls them, that are left unread.
        encoding: of a CSV or JSON file; found out unless given.
        say: called with a sentence on what was found out or left out.

    Raises:
        InputError: a file that is missing, damaged, empty or no table, or decimals in a column of ``texts``.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        what, cure = ("is a folder", "; name the files in it") if path.is_dir() else ("does not exist", "")
        raise InputError(f"{path} {what}: expected a table ending in .csv, .parquet or .jsonl{cure}.")
    if suffix in CSV_SUFFIXES:
        table = _read_csv(path, encoding, say)
    elif suffix == ".parquet":
        table = read_parquet_columns(open_parquet(path), path, besides)
    elif suffix in JSON_SUFFIXES:
        table = _read_json(path, texts, encoding)
    else:
        cure = CURES.get(suffix, "")
        raise InputError(f"{path} ends in '{path.suffix}': tables end in .csv, .parquet or .jsonl{cure}.")
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.")
    table = match_names(drop_nameless(table, path, say), {*texts, *names}, path, say)
    for position, name in enumerate(table.column_names):
        if name in table.column_names[:position]:
            raise InputError(f"{path} has two columns '{name}': rename one.")
    for position, name in enumerate(table.column_names):
        if name in texts:
            column = read_texts(table, name, path)
            table = table.set_column(position, pa.field(name, column.type), column)
    return table


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file whose pages are checked; Spark's old times are read without overflow."""
    with report_damage(path, "Parquet"):
        return pq.ParquetFile(path, page_checksum_verification=True, coerce_int96_timestamp_unit="us")


def read_parquet_columns(file: pq.ParquetFile, path: Path, besides: Collection[str] = ()) -> pa.Table:
    """All columns but some, validated; those of a foreign extension type are nested, so that none is used."""
    names = [name for name in file.schema_arrow.names if name not in besides]
    with report_damage(path, "Parquet"):
        table = file.read(names)
    for name in names:  # names of columns may come twice
        try:
            for position in table.schema.get_all_field_indices(name):
                table.column(position).validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise InputError(
                    f"{path}: column '{name}' holds text that is not valid UTF-8: write it again."
                ) from None
            raise InputError(f"{path} is damaged: column '{name}' cannot be read ({error}).") from None
    for position, column in enumerate(table.schema):
        if EXTENSION_NAME in (column.metadata or {}):
            table = table.set_column(position, column.name, _build_unread(table.num_rows))
    return table


def drop_nameless(table: pa.Table, path: Path, say: Say) -> pa.Table:
    """Without columns that have no name: the index of a DataFrame, R's row names, a spreadsheet's rest."""
    kept = [number for number, name in enumerate(table.column_names) if not NAMELESS.fullmatch(name.strip())]
    if len(kept) == table.num_columns:
        return table
    for number, name in enumerate(table.column_names):
        if number not in kept and table.column(number).null_count < table.num_rows:
            what = f"column {number + 1}, '{name}'," if name.strip() else f"column {number + 1}"
            say(f"{path}: {what} has no name, as row numbers have: it is left out; name it to keep it.")
    if not kept:
        raise InputError(f"{path} has no column with a name: write the names of columns in the first row.")
    return table.select(kept)


def match_names(table: pa.Table, names: Collection[str], path: Path, say: Say) -> pa.Table:
    """With columns renamed that differ from a wanted name in case, spaces around it or a plural s alone."""
    renamed = list(table.column_names)
    for name in names:
        near = find_column(renamed, name)
        if near is not None and near != name:
            say(f"{path}: column '{near}' is read as '{name}'.")
            renamed[renamed.index(near)] = name
    return table if renamed == table.column_names else table.rename_columns(renamed)


def find_column(columns: Sequence[str], name: str) -> str | None:
    """The column that is meant by a name: of that name, else the only one that differs in case and spaces
    around it alone, else the only one that is its plural as well; None where there is no such column."""
    if name in columns:
        return name
    for wanted in (name.casefold(), f"{name.casefold()}s"):
        near = [column for column in columns if column.strip().casefold() == wanted]
        if near:
            return near[0] if len(near) == 1 else None
    return None


def read_tables(
    paths: Sequence[Path],
    texts: Collection[str],
    *,
    names: Collection[str] = (),
    besides: Collection[str] = (),
    encoding: str | None = None,
    say: Say = silent_say,
) -> pa.Table:
    """Several files of one table, one after the other; raises InputError when their columns differ."""
    tables = [
        read_table(path, texts, names=names, besides=besides, encoding=encoding, say=say) for path in paths
    ]
    names = tables[0].column_names
    for table, path in zip(tables, paths, strict=True):
        if set(table.column_names) != set(names):
            raise InputError(f"{path} has other columns than {paths[0]}.")
    tables = [table.select(names) for table in tables]
    for name in names:  # what is as written in all files stays so; beside typed columns its type is found
        if len({(table.field(name).metadata or {}).get(WRITTEN) for table in tables}) > 1:
            tables = [
                _replace(table, name, infer_type(table, name)) if get_origin(table, name) else table
                for table in tables
            ]
    for table, path in zip(tables, paths, strict=True):
        try:  # whole numbers in one file and decimals in another are decimals
            pa.unify_schemas([tables[0].schema, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise InputError(f"{path} does not fit {paths[0]}: {str(error).splitlines()[0]}.") from None
    return pa.concat_tables(tables, promote_options="permissive")


def get_origin(table: pa.Table, name: str) -> bytes | None:
    """The kind of file that a column's text comes from as written, or None for a column that has a type."""
    return (table.field(name).metadata or {}).get(WRITTEN)


def read_metadata_columns(
    table: pa.Table, without: Collection[str], path: Path, say: Say = silent_say
) -> dict[str, NDArray[Any]]:
    """Every column that can be metadata, by name: text, numbers, booleans or datetime64 in UTC.

    They are as an ``EmbeddingSet`` has them, masked where a value is missing.

    Lists, structs and bytes are left out, which is said. Raises InputError for a value that cannot be kept.
    """
    metadata: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        if name in without:
            continue
        what = f"column '{name}'"
        column = convert_metadata(infer_type(table, name), what, str(path))
        if column is None:
            kind = table.column(name).type
            held = "lists or objects" if kind == UNREAD else kind
            say(f"{path}: column '{name}' holds {held}, which is no metadata: it is left out.")
            continue
        metadata[name] = to_numpy(column, what, str(path))
        if is_text(column.type) and _all(pc.match_substring_regex(column, DAY_AND_MONTH), column):
            say(
                f"{path}: column '{name}' holds dates whose day and month cannot be told apart; they "
                "are kept as text: write 2024-01-31 to compare them as dates."
            )
    return metadata


def infer_type(table: pa.Table, name: str) -> Any:
    """A column as one array; text of a CSV that is all numbers, booleans or times as these.

    Digits are text where a number would lose some: with leading zeros, or beyond 64 bits.
    """
    column, origin = simplify(table.column(name)), get_origin(table, name)
    if origin is None or not _may_have_type(column, origin):
        return column
    texts = pc.utf8_trim_whitespace(column)
    if origin != FROM_JSON:
        is_missing = pc.is_in(texts, pa.array(MISSING_SPELLINGS, pa.large_string()))
        texts = pc.if_else(pc.fill_null(is_missing, True), pa.scalar(None, pa.large_string()), texts)
        if texts.null_count == len(texts):
            return column
        lowered = pc.utf8_lower(texts)
        if _all(pc.is_in(lowered, pa.array(["true", "false"], pa.large_string())), texts):
            return pc.equal(lowered, "true")
        numbers = _infer_numbers(texts, origin)
        if numbers is not None:
            return numbers
    instants = _infer_instants(texts)
    return column if instants is None else instants


def parse_floats(table: pa.Table, name: str) -> Any:
    """A column as written as float64, whatever zeros lead its digits; itself where it is no numbers."""
    column, origin = simplify(table.column(name)), get_origin(table, name)
    if origin not in (FROM_CSV, FROM_CSV_WITH_COMMAS):
        return column
    texts = pc.utf8_trim_whitespace(column)
    is_missing = pc.is_in(texts, pa.array(MISSING_SPELLINGS, pa.large_string()))
    texts = pc.if_else(pc.fill_null(is_missing, True), pa.scalar(None, pa.large_string()), texts)
    floats = _cast_to_floats(texts, origin)
    return column if floats is None else floats


def _may_have_type(column: Any, origin: bytes) -> bool:
    """Whether the first value that is there could be a number, a boolean or a time."""
    likely = LIKELY_TIME if origin == FROM_JSON else LIKELY_TYPED
    for start in range(0, len(column), ROWS_AT_ONCE):
        for value in column.slice(start, ROWS_AT_ONCE).to_pylist():
            text = "" if value is None else value.strip()
            if text and (origin == FROM_JSON or text not in MISSING_SPELLINGS):
                return likely.match(text) is not None
    return False


def _infer_numbers(texts: Any, origin: bytes) -> Any:
    digits = pc.utf8_ltrim(texts, characters="+")
    begins_whole = texts.drop_null()[0].as_py().lstrip("+-").isdecimal()
    for kind in (pa.int64(), pa.uint64()) if begins_whole else ():
        try:
            whole = pc.cast(digits, kind)
        except pa.ArrowInvalid:
            continue
        same = pc.equal(pc.cast(whole, pa.large_string()), digits)
        return whole if pc.all(same).as_py() or not _has_leading_zeros(texts) else None
    if _has_leading_zeros(texts) or _all(pc.match_substring_regex(texts, r"^[+-]?\d+$"), texts):
        return None
    floats = _cast_to_floats(texts, origin)
    if floats is None:
        return None
    whole = pc.fill_null(pc.match_substring_regex(texts, r"^[+-]?\d{16,}$"), False)
    too_large = pc.greater_equal(pc.abs(floats), float(LARGEST_EXACT_FLOAT))
    return None if pc.any(pc.and_(whole, pc.fill_null(too_large, False))).as_py() else floats


def _has_leading_zeros(texts: Any) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, r"^[+-]?0\d")).as_py())


def _cast_to_floats(texts: Any, origin: bytes) -> Any:
    plain = pc.utf8_ltrim(texts, characters="+")
    try:
        return pc.cast(plain, pa.float64())
    except pa.ArrowInvalid:
        pass
    if origin == FROM_CSV_WITH_COMMAS and _all(
        pc.match_substring_regex(texts, r"^[+-]?\d*(,\d+)?([eE][+-]?\d+)?$"), texts
    ):
        try:
            return pc.cast(pc.replace_substring(plain, ",", "."), pa.float64())
        except pa.ArrowInvalid:
            pass
    return None


def _infer_instants(texts: Any) -> Any:
    first = texts.drop_null()[0].as_py()
    if ISO_8601.fullmatch(first) is None:
        return None
    kinds = [pa.date32()] if len(first) == len("2024-01-31") else []
    for kind in (*kinds, pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pc.cast(texts, kind)
        except pa.ArrowInvalid:
            continue
    parsed = parse_instants(texts.to_pylist())  # with and without zones
    return parsed if parsed.null_count == texts.null_count else None


def _all(condition: Any, texts: Any) -> bool:
    """Whether a condition holds wherever there is a value."""
    return bool(pc.sum(condition.cast(pa.int64())).as_py() == len(texts) - texts.null_count)


def read_texts(table: pa.Table, name: str, path: Path) -> Any:
    """A column of labels, ids or texts as large_string, null where one is missing.

    What a CSV holds is as written; integers are without the spaces around them.
    """
    column = simplify(table.column(name))
    if get_origin(table, name) is None:
        return format_texts(column, f"column '{name}'", str(path))
    if get_origin(table, name) != FROM_JSON:
        trimmed = pc.utf8_trim_whitespace(column)
        if _all(pc.match_substring_regex(trimmed, r"^[+-]?[0-9]+$"), trimmed):
            return trimmed
    return column


def _read_csv(path: Path, encoding: str | None, say: Say) -> pa.Table:
    table, delimiter = read_delimited(path, encoding, say)
    origin = FROM_CSV if delimiter == "," else FROM_CSV_WITH_COMMAS
    fields = [pa.field(name, pa.large_string(), metadata={WRITTEN: origin}) for name in table.column_names]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _replace(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), pa.field(name, column.type), column)


def _build_unread(n: int) -> Any:
    return pa.nulls(n, UNREAD)


def _read_json(path: Path, texts: Collection[str], encoding: str | None) -> pa.Table:
    values_of, n = _read_json_columns(path, encoding)
    names = list(values_of)
    fields, columns = [], []
    for name in names:
        values = values_of.pop(name)
        if not {dict, list}.isdisjoint(map(type, values)):
            column = _build_unread(n)
        elif name in texts:
            column = read_labels(values, f"column '{name}'", str(path))
        else:
            column = build_column(values, f"column '{name}'", str(path))
        is_text = pa.types.is_large_string(column.type)
        fields.append(pa.field(name, column.type, metadata={WRITTEN: FROM_JSON} if is_text else None))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _read_json_columns(path: Path, encoding: str | None) -> tuple[dict[str, list[Any]], int]:
    """One object a line, or one array of objects: the values of each name, None where a row has none; the
    number of rows. Neither the file's text nor its objects are all held."""
    columns: dict[str, list[Any]] = {}
    n = 0
    for row in _iterate_json(path, encoding):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (n - len(column)))
            column.append(value)
        n += 1
    for column in columns.values():
        column.extend([None] * (n - len(column)))
    return columns, n


def _iterate_json(path: Path, encoding: str | None) -> Iterator[dict[str, Any]]:
    numbered = enumerate(read_lines(path, encoding), 1)
    start, first = next(((number, line) for number, line in numbered if line.strip(SPACES)), (1, ""))
    first = first.removeprefix("\ufeff")
    is_array = first.lstrip().startswith("[")
    if is_array:
        first = "".join([first, *(line for _, line in numbered)])
    for number, line in chain([(start, first)], numbered):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"{path} cannot be read as a table: line {number} is not JSON ({reason}): write one object "
                "a line."
            ) from None
        for entry in value if is_array and isinstance(value, list) else [value]:
            if not isinstance(entry, dict):
                raise InputError(
                    f"{path} cannot be read as a table: line {number} is no object of columns and values."
                )
            yield entry
