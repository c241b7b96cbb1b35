"""Labelled files of one form: in class folders, in zips that are read in place, or named by a list."""

from __future__ import annotations

import os
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.progress import Say, silent_say
from embeddings.tables import LIST_SUFFIXES, read_metadata_columns, read_table
from encoder.inputs.preprocessing import Preprocessing, RefusedInput
from training.data.pair_labels import group_pairs, holds_pairs
from training.data.tables import read_text_column

LITTER = frozenset(("thumbs.db", "desktop.ini"))  # that systems leave in folders of images
MAX_NAMED = 5
SETTLED_NS = 2_000_000_000  # after a file's last change, from when on its times tell whether it is the same
CHUNK_BYTES = 4096  # bytes of an archive that are decompressed at once, to a few megabytes at the most


@dataclass(frozen=True)
class LabelledFile:
    """One file that can be read again and again; ``name`` is how messages and ids call it.

    Attributes:
        stamp: where it lies, how large it is and when it last changed; None where that was just now.
    """

    name: str
    label: str
    read: Callable[[], bytes]
    columns: Mapping[str, Any] = field(default_factory=dict)
    listed_in: str | None = None
    written: Callable[[], np.datetime64] | None = None
    stamp: Callable[[], str | None] = lambda: None

    @property
    def folder(self) -> str:
        """The folder that holds the class's folder: an alphabet, a writer, a camera; of a file that a list
        names, the folder it lies in: a session, a day. Empty at the root."""
        return self.label.rpartition("/")[0] if self.listed_in is None else self.listed_in

    def read_time(self) -> np.datetime64:
        """When the file was written, in UTC."""
        return self.written() if self.written else np.datetime64("NaT", "s")

    def decode(self, content: bytes, preprocessing: Preprocessing) -> NDArray[Any]:
        """Bytes that were read before as the rows that are kept for training, [rows, *shape].

        Raises RefusedInput, see ``name_errors``.
        """
        raise NotImplementedError

    @contextmanager
    def name_errors(self) -> Iterator[None]:
        """Turn refusals of the decoder and errors of archives into an InputError that names the file."""
        try:
            yield
        except RefusedInput as refused:
            raise self._build_error(refused.reason) from None
        except (InputError, MemoryError):
            raise
        except Exception as error:  # archives raise whatever they like on broken files
            raise self._build_error(f"{str(error).rstrip('.') or type(error).__name__}.") from None

    def _build_error(self, reason: str) -> InputError:
        return InputError(f"{self.name} cannot be used: {reason} Remove it, or set data.broken=skip.")


F = TypeVar("F", bound=LabelledFile)
T = TypeVar("T")


@dataclass(frozen=True)
class FileForm(Generic[F]):
    """What the files of one form are called, how they are told from others, and how large one may be.

    Attributes:
        noun: what one is called.
        suffixes: of their names, in lower case.
        example: suffixes to name in messages.
        check_size: raises RefusedInput for a number of bytes that is too large.
        advice: what to do with files of other forms.
    """

    file: type[F]
    noun: str
    suffixes: frozenset[str]
    example: str
    check_size: Callable[[int], None]
    advice: str


def find_files(
    form: FileForm[F],
    paths: Sequence[Path],
    path_column: str = "path",
    label_column: str = "label",
    encoding: str | None = None,
    say: Say = silent_say,
    needs_labels: bool = True,
) -> list[F]:
    """Every file of a form below the given folders and in the given zips, by name, or named by a list.

    A list without labels may hold pairs or triplets of paths instead (``training.data.pair_labels``).

    The class is the folder's path relative to the root, or the list's label. Names are prefixed with the
    root's name where several roots are given. A list's paths start at the folder of the list. Where no labels
    are needed files may lie in the root itself.

    Raises:
        InputError: a path that is missing, holds no such file, or holds some outside any class folder; a
            damaged archive; a name that is no UTF-8.
    """
    files: list[F] = []
    for root in paths:
        prefix = f"{root.stem}/" if len(paths) > 1 else ""
        unread: list[str] = []
        if root.is_dir():
            found = _list_folder(form, root, prefix, unread)
        elif root.suffix.lower() in LIST_SUFFIXES:
            found = _read_list(form, root, prefix, path_column, label_column, encoding, say)
        elif zipfile.is_zipfile(root):
            found = _list_zip(form, root, prefix, unread)
        elif root.exists():
            raise InputError(f"{root} is neither a folder, a zip archive nor a list (.csv, .parquet).")
        else:
            raise InputError(f"{root} does not exist: data.path must be a folder of class folders or a zip.")
        if not found:
            raise InputError(
                f"{root} holds no {form.noun}s: expected a folder per class with files such as "
                f"{form.example}.{_name_unread(form, unread)}"
            )
        loose = next((file for file in found if file.label in ("", ".")), None)
        if loose and needs_labels:
            raise InputError(f"{root}: {loose.name} is in no class folder: expected CLASS/{loose.name}.")
        for name in (str(root), *(file.name for file in found)):
            shown = name.encode(errors="backslashreplace").decode()
            if shown != name:
                raise InputError(f"The name of {shown} is not written in UTF-8: rename it.")
        files += found
        if unread:
            read = {file.label for file in found}
            lost = sorted({name.rpartition("/")[0] for name in unread} - read - {""})
            classes = f" No {form.noun} was read of {_name_some(lost)}." if lost else ""
            say(f"{root}:{_name_unread(form, unread)}{classes}")
    return files


def read_each(files: Sequence[F], read: Callable[[F], T], what: str) -> list[T]:
    """Result of ``read`` for each but the broken files; the full read decides whether those are an error.

    Raises InputError that names the first where all are broken; ``what`` one of them is, e.g. image.
    """
    results: list[T] = []
    refusals: list[InputError] = []
    for file in files:
        try:
            results.append(read(file))
        except InputError as refusal:
            refusals.append(refusal)
    if not results:
        raise InputError(
            f"{files[0].name} and every other {what} that was tried is broken. {refusals[0]}"
        ) from None
    return results


def _name_unread(form: FileForm[F], unread: Sequence[str]) -> str:
    if not unread:
        return ""
    were = "files were" if unread[1:] else "file was"
    return f" {len(unread)} {were} not read: {_name_some(sorted(unread))}. {form.advice}"


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if names[MAX_NAMED:] else "")


def _list_folder(form: FileForm[F], root: Path, prefix: str, unread: list[str]) -> list[F]:
    """The files of the form below a folder, through links as well; names of others go to ``unread``."""
    relative = [name for name in _walk(root, unread) if not any(part.startswith(".") for part in name.parts)]
    files = []
    for name in sorted(relative):
        path = root / name
        if not path.exists():
            unread.append(f"{name.as_posix()} (a link to nothing)")
        elif _fits(form, name):
            files.append(
                form.file(
                    prefix + name.as_posix(),
                    name.parent.as_posix(),
                    partial(_read_file, form, path),
                    written=partial(_read_file_time, path),
                    stamp=partial(stamp_file, path),
                )
            )
        elif name.name.lower() not in LITTER:
            unread.append(name.as_posix())
    return files


def _walk(root: Path, unread: list[str]) -> Iterator[Path]:
    """Every file below a folder, relative to it; links to a folder that they lie in are not followed."""
    waiting: list[tuple[Path, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        place = os.path.realpath(folder)
        if place in above:
            continue
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            unread.append(f"{folder.relative_to(root).as_posix()} ({error.strerror})")
            continue
        for entry in entries:
            if entry.is_dir():
                waiting.append((folder / entry.name, above | {place}))
            else:
                yield (folder / entry.name).relative_to(root)


def _fits(form: FileForm[F], name: PurePath) -> bool:
    return name.suffix.lower() in form.suffixes


def _list_zip(form: FileForm[F], root: Path, prefix: str, unread: list[str]) -> list[F]:
    try:
        archive = zipfile.ZipFile(root)
    except Exception as error:  # zipfile raises whatever it likes on a broken table of contents
        raise InputError(f"{root} is a damaged zip archive: {error}. Make it again.") from None
    files, archive_stamp = [], stamp_file(root)
    for entry in sorted(archive.infolist(), key=lambda info: info.filename):
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            continue
        if _fits(form, path):
            files.append(
                form.file(
                    prefix + entry.filename,
                    path.parent.as_posix(),
                    partial(_read_entry, form, archive, entry),
                    written=partial(_convert_zip_time, entry.date_time),
                    stamp=partial(_stamp_entry, archive_stamp, entry),
                )
            )
        elif path.name.lower() not in LITTER:
            unread.append(entry.filename)
    return files


def _read_file(form: FileForm[F], path: Path) -> bytes:
    if not path.exists():
        path = _find_other_form(path)
    form.check_size(path.stat().st_size)
    return path.read_bytes()


def _read_file_time(path: Path) -> np.datetime64:
    path = path if path.exists() else _find_other_form(path)
    return np.datetime64(int(path.stat().st_mtime), "s") if path.exists() else np.datetime64("NaT", "s")


def stamp_file(path: Path) -> str | None:
    """What changes with the file, even when its size and time are those of before; as git's index has it."""
    path = path if path.exists() else _find_other_form(path)
    if not path.exists():
        return None
    status = path.stat()
    if time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) < SETTLED_NS:
        return None
    times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return f"{path.absolute()} {times}"


def _stamp_entry(archive_stamp: str | None, entry: zipfile.ZipInfo) -> str | None:
    if archive_stamp is None:
        return None
    return f"{archive_stamp} {entry.header_offset} {entry.file_size} {entry.CRC} {entry.filename}"


def _convert_zip_time(moment: tuple[int, ...]) -> np.datetime64:
    year, month, day, hour, minute, second = moment
    try:
        return np.datetime64(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", "s")
    except ValueError:  # an archive may hold any numbers
        return np.datetime64("NaT", "s")


def _find_other_form(path: Path) -> Path:
    """The file that a list names in another Unicode form than the disk does, as lists from elsewhere do."""
    others = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in others if other.exists()), path)


def _read_entry(form: FileForm[F], archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Never more than the size that the archive says, which is checked before."""
    form.check_size(entry.file_size)
    with archive.open(entry) as opened:
        return b"".join(iter(partial(opened.read, CHUNK_BYTES), b""))


def _read_list(
    form: FileForm[F],
    root: Path,
    prefix: str,
    path_column: str,
    label_column: str,
    encoding: str | None,
    say: Say,
) -> list[F]:
    table = read_table(root, {path_column, label_column}, encoding=encoding, say=say)
    columns: Mapping[str, NDArray[Any]] = {}
    if holds_pairs(table, label_column):
        names, labels = (part.tolist() for part in group_pairs(table, root))
    else:
        names = read_text_column(table, path_column, root).tolist()
        labels = read_text_column(table, label_column, root).tolist()
        columns = read_metadata_columns(table, {path_column, label_column}, root, say)
    return [
        form.file(
            prefix + name,
            label,
            partial(_read_file, form, root.parent / name),
            {column: values[row] for column, values in columns.items()},
            PurePosixPath(name).parent.as_posix().removeprefix("."),
            partial(_read_file_time, root.parent / name),
            partial(stamp_file, root.parent / name),
        )
        for row, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
