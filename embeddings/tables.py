"""Tables in CSV, Parquet and JSON Lines, read into Arrow: the one reader of every table.

A CSV says no types and JSON no dates. Their text columns are kept as written and marked so; who uses a column
says whether it is labels (then it stays as written), numbers, or metadata (whose type is found).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common.errors import InputError
from common.progress import Say, silent_say
from embeddings.arrow_columns import (
    convert_lists,
    convert_metadata,
    format_texts,
    is_text,
    simplify,
    to_numpy,
)
from embeddings.delimited_text import iterate_delimited, read_delimited
from embeddings.json_rows import JsonColumns, iterate_json
from embeddings.list_columns import find_unfit_list, is_lists
from embeddings.npy import report_damage
from embeddings.python_objects import build_column, build_list_column, read_labels
from embeddings.written_columns import (
    FROM_CSV,
    FROM_CSV_WITH_COMMAS,
    FROM_JSON,
    WRITTEN,
    are_integers,
    get_origin,
    holds_everywhere,
    infer_type,
)

CSV_SUFFIXES = frozenset((".csv", ".tsv"))
JSON_SUFFIXES = frozenset((".jsonl", ".ndjson"))
LIST_SUFFIXES = CSV_SUFFIXES | {".parquet"}
NAMELESS = re.compile(r"|__index_level_\d+__|Unnamed: \d+|\.\.\.\d+")  # what pandas and R call a row's name
UNREAD = pa.list_(
    pa.list_(pa.null())
)  # the type that stands for what no column of labels or metadata can hold
DAY_AND_MONTH = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}( .*)?$"
BLOCK_ROWS = 8_192  # of a column that is set aside
LONGEST_LIST = 64  # values; a longer one is rather a vector than metadata
SHEET = "; save the sheet as 'CSV UTF-8'"
CURES = dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), SHEET) | dict.fromkeys(
    (".gz", ".zip", ".bz2", ".xz", ".zst"), "; unpack it"
)
EXTENSION_NAME = b"ARROW:extension:name"


class Aside(Protocol):
    """Takes one column of texts block by block, so that the table need not hold it.

    Attributes:
        name: of the column, which is found as those of ``read_table`` are.
    """

    name: str

    def begin(self, path: Path, is_written: bool) -> AbstractContextManager[Callable[[Any], None]]:
        """What takes the next texts of a file, large_string [b], null where one is missing.

        Args:
            is_written: the file says no types: texts may be integers, with spaces around them.
        """


def read_table(
    path: Path,
    texts: Collection[str] = (),
    *,
    names: Collection[str] = (),
    besides: Collection[str] = (),
    encoding: str | None = None,
    say: Say = silent_say,
    aside: Aside | None = None,
) -> pa.Table:
    """Read a whole table.

    Args:
        texts: columns that are labels, ids, paths or texts: 01 is another label than 1. They and ``names``
            are found whatever the case of their letters.
        besides: columns of a Parquet file, as it calls them, that are left unread.
        encoding: of a CSV or JSON file; found out unless given.
        say: called with a sentence on what was found out or left out.
        aside: takes a column of which only the name stays, with no values. Of JSON that is one object a line.

    Raises:
        InputError: a file that is missing, damaged, empty or no table, or decimals in a column of ``texts``.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        what, cure = ("is a folder", "; name the files in it") if path.is_dir() else ("does not exist", "")
        raise InputError(f"{path} {what}: expected a table ending in .csv, .parquet or .jsonl{cure}.")
    if suffix in CSV_SUFFIXES:
        table = _read_csv(path, encoding, say, aside)
    elif suffix == ".parquet":
        table = _read_parquet(path, besides, aside)
    elif suffix in JSON_SUFFIXES:
        table = _read_json(path, texts, encoding, aside)
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
        if name in texts and not (aside and name == aside.name and pa.types.is_null(table.field(name).type)):
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
    for name in names:
        _check_column(table, name, path)
    for position, column in enumerate(table.schema):
        if EXTENSION_NAME in (column.metadata or {}):
            table = table.set_column(position, column.name, _build_unread(table.num_rows))
    return table


def _check_column(table: pa.Table, name: str, path: Path) -> None:
    try:
        for position in table.schema.get_all_field_indices(name):  # names of columns may come twice
            table.column(position).validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise InputError(
                f"{path}: column '{name}' holds text that is not valid UTF-8: write it again."
            ) from None
        raise InputError(f"{path} is damaged: column '{name}' cannot be read ({error}).") from None


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
    aside: Aside | None = None,
) -> pa.Table:
    """Several files of one table, one after the other; raises InputError when their columns differ."""
    tables = [
        read_table(path, texts, names=names, besides=besides, encoding=encoding, say=say, aside=aside)
        for path in paths
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


def read_metadata_columns(
    table: pa.Table, without: Collection[str], path: Path, say: Say = silent_say
) -> dict[str, NDArray[Any]]:
    """Every column that can be metadata, by name: text, numbers, booleans, datetime64 in UTC or lists.

    They are as an ``EmbeddingSet`` has them, masked where a value is missing.

    Structs, bytes and lists of anything but a few texts or numbers are left out, which is said. Raises
    InputError for a value that cannot be kept.
    """
    metadata: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        if name in without:
            continue
        what = f"column '{name}'"
        column = infer_type(table, name)
        fault = _find_unfit_list(column, what, str(path)) if is_lists(column.type) else None
        if fault is not None:
            say(f"{path}: {what} holds {fault}; the column is left out.")
            continue
        column = convert_metadata(column, what, str(path))
        if column is None:
            kind = table.column(name).type
            held = "lists or objects" if kind == UNREAD else kind
            say(f"{path}: column '{name}' holds {held}, which is no metadata: it is left out.")
            continue
        metadata[name] = to_numpy(column, what, str(path))
        if is_text(column.type) and holds_everywhere(pc.match_substring_regex(column, DAY_AND_MONTH), column):
            say(
                f"{path}: column '{name}' holds dates whose day and month cannot be told apart; they "
                "are kept as text: write 2024-01-31 to compare them as dates."
            )
    return metadata


def _find_unfit_list(column: Any, what: str, source: str) -> str | None:
    """What is wrong with a list of text or numbers; None where nothing is, or for other lists."""
    parts = convert_lists(column, what, source)
    if parts is None:
        return None
    longest = int(parts.lengths.max(initial=0))
    if longest > LONGEST_LIST:
        return f"a list of {longest} values in row {parts.lengths.argmax()}, where {LONGEST_LIST} may be"
    return find_unfit_list(parts)


def read_texts(table: pa.Table, name: str, path: Path) -> Any:
    """A column of labels, ids or texts as large_string, null where one is missing.

    What a CSV holds is as written; integers are without the spaces around them.
    """
    column = simplify(table.column(name))
    if get_origin(table, name) is None:
        return format_texts(column, f"column '{name}'", str(path))
    if get_origin(table, name) != FROM_JSON and are_integers(column):
        return pc.utf8_trim_whitespace(column)
    return column


def _read_csv(path: Path, encoding: str | None, say: Say, aside: Aside | None) -> pa.Table:
    if aside is None:
        table, delimiter = read_delimited(path, encoding, say)
    else:
        delimiter, blocks = iterate_delimited(path, encoding, say)
        table = _set_aside(blocks, aside, path, is_written=True)
    origin = FROM_CSV if delimiter == "," else FROM_CSV_WITH_COMMAS
    fields = [
        pa.field(name, kind, metadata=None if pa.types.is_null(kind) else {WRITTEN: origin})
        for name, kind in zip(table.column_names, table.schema.types, strict=True)
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _read_parquet(path: Path, besides: Collection[str], aside: Aside | None) -> pa.Table:
    file = open_parquet(path)
    written = None if aside is None else _find_only(file.schema_arrow.names, aside.name)
    if aside is None or written is None:
        return read_parquet_columns(file, path, besides)
    with report_damage(path, "Parquet"):
        blocks = (
            pa.Table.from_batches([batch]) for batch in file.iter_batches(BLOCK_ROWS, columns=[written])
        )
        column = _set_aside(_validate(blocks, written, path), aside, path, is_written=False).column(0)
    rest = read_parquet_columns(file, path, {*besides, written})
    return rest.append_column(written, column)


def _validate(blocks: Iterable[pa.Table], name: str, path: Path) -> Iterator[pa.Table]:
    for block in blocks:
        _check_column(block, name, path)
        yield block


def _set_aside(blocks: Iterable[pa.Table], aside: Aside, path: Path, *, is_written: bool) -> pa.Table:
    """The blocks as one table, in which the column that was taken has no values."""
    rest = []
    with aside.begin(path, is_written) as take:
        for block in blocks:
            name = _find_only(block.column_names, aside.name)
            if name is not None:
                if len(block):
                    column = simplify(block.column(name))
                    take(format_texts(column, f"column '{aside.name}'", str(path)))
                block = _replace(block, name, pa.nulls(len(block)))
            rest.append(block)
    return pa.concat_tables(rest)


def _find_only(names: Sequence[str], wanted: str) -> str | None:
    """The column that is meant by a name, unless there are two of its name."""
    name = find_column(names, wanted)
    return name if name is not None and list(names).count(name) == 1 else None


def _replace(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), pa.field(name, column.type), column)


def _build_unread(n: int) -> Any:
    return pa.nulls(n, UNREAD)


def _read_json(path: Path, texts: Collection[str], encoding: str | None, aside: Aside | None) -> pa.Table:
    rows = iterate_json(path, encoding)
    read = JsonColumns()
    taken = None
    if aside is None:
        for row in rows:
            read.add(row)
    else:
        taken = _set_json_aside(rows, read, aside, path)
    fields, columns = [], []
    for name, values in read.take():
        kinds = set(map(type, values))
        if dict in kinds or (list in kinds and name in texts):
            column = _build_unread(read.rows)
        elif list in kinds:
            column = _read_json_lists(values, f"column '{name}'", str(path))
        elif name in texts:
            column = read_labels(values, f"column '{name}'", str(path))
        else:
            column = build_column(values, f"column '{name}'", str(path))
        is_text = pa.types.is_large_string(column.type)
        fields.append(pa.field(name, column.type, metadata={WRITTEN: FROM_JSON} if is_text else None))
        columns.append(column)
    if taken is not None:
        fields.append(pa.field(taken, pa.null()))
        columns.append(pa.nulls(read.rows))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _read_json_lists(values: list[Any], what: str, source: str) -> Any:
    """A column with lists; as what is not read where it holds anything but lists of one kind of values."""
    try:
        return build_list_column(values, what, source)
    except InputError:
        return _build_unread(len(values))


def _set_json_aside(
    rows: Iterable[dict[str, Any]], read: JsonColumns, aside: Aside, path: Path
) -> str | None:
    """All rows into columns but for the texts that are taken; what the first row calls these."""
    name, values = None, list[Any]()
    what = f"column '{aside.name}'"
    with aside.begin(path, is_written=False) as take:
        for row in rows:
            if not read.rows:
                name = find_column(list(row), aside.name)
            if name is not None:
                values.append(row.pop(name, None))
            read.add(row)
            if len(values) == BLOCK_ROWS:
                take(read_labels(values, what, str(path), read.rows - len(values)))
                values = []
        if values:
            take(read_labels(values, what, str(path), read.rows - len(values)))
    if name is not None and find_column([*read.names, name], aside.name) != name:
        raise InputError(f"{path}: some rows call a column '{aside.name}', the first '{name}': rename one.")
    return name
