"""Image files in class folders, zips that are read in place, and lists of paths."""

from __future__ import annotations

import io
import os
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from common.errors import InputError
from common.progress import Say, silent_say
from embeddings.tables import LIST_SUFFIXES, read_metadata_columns, read_table
from encoder.inputs.image_decoder import FORMATS, check_size, decode_image
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import RefusedInput
from training.data.pair_labels import group_pairs, holds_pairs
from training.data.tables import read_text_column

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp")
) | frozenset((".ppm", ".pgm", ".pbm", ".pnm"))
LITTER = frozenset(("thumbs.db", "desktop.ini"))  # that systems leave in folders of images
MAX_NAMED = 5
CHUNK_BYTES = 4096  # bytes of an archive that are decompressed at once, to a few megabytes at the most


@dataclass(frozen=True)
class ImageFile:
    """One image that can be opened again and again; ``name`` is how messages and ids call it."""

    name: str
    label: str
    read: Callable[[], bytes]
    columns: Mapping[str, Any] = field(default_factory=dict)
    listed_in: str | None = None
    written: Callable[[], np.datetime64] | None = None

    @property
    def folder(self) -> str:
        """The folder that holds the class's folder: an alphabet, a writer, a camera; of a file that a list
        names, the folder it lies in: a session, a day. Empty at the root."""
        return self.label.rpartition("/")[0] if self.listed_in is None else self.listed_in

    def open(self) -> Image.Image:
        """Decode the whole image; raises InputError naming the file when it is broken or too large."""
        with self.name_errors():
            return decode_image(self.read())

    def read_pixels(self, preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
        """The network's input, not yet normalised: uint8 [channels, h, w]; raises InputError as ``open``."""
        with self.name_errors():
            return preprocessing.compute_pixels(self.open())

    def read_time(self) -> np.datetime64:
        """When the image was taken, or else when its file was written; in the camera's own time zone."""
        try:
            with Image.open(io.BytesIO(self.read()), formats=FORMATS) as image:
                exif = image.getexif()
                taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            day, _, time = str(taken or exif[ExifTags.Base.DateTime]).partition(" ")
            return np.datetime64(f"{day.replace(':', '-')}T{time}", "s")
        except Exception:  # no such tag, no such time, no image: decoders raise whatever they like
            return self.written() if self.written else np.datetime64("NaT", "s")

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


def find_images(
    paths: Sequence[Path],
    path_column: str = "path",
    label_column: str = "label",
    encoding: str | None = None,
    say: Say = silent_say,
) -> list[ImageFile]:
    """Every image below the given folders and in the given zips, by name; or those that a list names.

    A list without labels may hold pairs or triplets of paths instead (``training.data.pair_labels``).

    The class is the folder's path relative to the root, or the list's label. Names are prefixed with the
    root's name where several roots are given. A list's paths start at the folder of the list.

    Raises:
        InputError: a path that is missing, holds no image, or holds images outside any class folder; a
            damaged archive; a name that is no UTF-8.
    """
    files: list[ImageFile] = []
    for root in paths:
        prefix = f"{root.stem}/" if len(paths) > 1 else ""
        unread: list[str] = []
        if root.is_dir():
            images = _list_folder(root, prefix, unread)
        elif root.suffix.lower() in LIST_SUFFIXES:
            images = _read_list(root, prefix, path_column, label_column, encoding, say)
        elif zipfile.is_zipfile(root):
            images = _list_zip(root, prefix, unread)
        elif root.exists():
            raise InputError(f"{root} is neither a folder, a zip archive nor a list (.csv, .parquet).")
        else:
            raise InputError(f"{root} does not exist: data.path must be a folder of class folders or a zip.")
        if not images:
            raise InputError(
                f"{root} holds no images: expected a folder per class with files such as .png or .jpg."
                f"{_name_unread(unread)}"
            )
        loose = next((image for image in images if image.label in ("", ".")), None)
        if loose:
            raise InputError(f"{root}: {loose.name} is in no class folder: expected CLASS/{loose.name}.")
        for name in (str(root), *(image.name for image in images)):
            shown = name.encode(errors="backslashreplace").decode()
            if shown != name:
                raise InputError(f"The name of {shown} is not written in UTF-8: rename it.")
        files += images
        if unread:
            read = {image.label for image in images}
            lost = sorted({name.rpartition("/")[0] for name in unread} - read - {""})
            classes = f" No image was read of {_name_some(lost)}." if lost else ""
            say(f"{root}:{_name_unread(unread)}{classes}")
    return files


def _name_unread(unread: Sequence[str]) -> str:
    if not unread:
        return ""
    were = "files were" if unread[1:] else "file was"
    return (
        f" {len(unread)} {were} not read: {_name_some(sorted(unread))}. Images of the kinds "
        f"{', '.join(FORMATS)} are: save others, such as .heic or .avif, as JPEG or PNG."
    )


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if names[MAX_NAMED:] else "")


def _list_folder(root: Path, prefix: str, unread: list[str]) -> list[ImageFile]:
    """The images below a folder, through links as well; the names of other files go to ``unread``."""
    relative = [name for name in _walk(root, unread) if not any(part.startswith(".") for part in name.parts)]
    images = []
    for name in sorted(relative):
        path = root / name
        if not path.exists():
            unread.append(f"{name.as_posix()} (a link to nothing)")
        elif _is_image(name):
            images.append(
                ImageFile(
                    prefix + name.as_posix(),
                    name.parent.as_posix(),
                    partial(_read_file, path),
                    written=partial(_read_file_time, path),
                )
            )
        elif name.name.lower() not in LITTER:
            unread.append(name.as_posix())
    return images


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


def _is_image(name: PurePath) -> bool:
    return name.suffix.lower() in SUFFIXES


def _list_zip(root: Path, prefix: str, unread: list[str]) -> list[ImageFile]:
    try:
        archive = zipfile.ZipFile(root)
    except Exception as error:  # zipfile raises whatever it likes on a broken table of contents
        raise InputError(f"{root} is a damaged zip archive: {error}. Make it again.") from None
    images = []
    for entry in sorted(archive.infolist(), key=lambda info: info.filename):
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            continue
        if _is_image(path):
            read = partial(_read_entry, archive, entry)
            name = prefix + entry.filename
            images.append(
                ImageFile(
                    name, path.parent.as_posix(), read, written=partial(_convert_zip_time, entry.date_time)
                )
            )
        elif path.name.lower() not in LITTER:
            unread.append(entry.filename)
    return images


def _read_file(path: Path) -> bytes:
    if not path.exists():
        path = _find_other_form(path)
    check_size(path.stat().st_size)
    return path.read_bytes()


def _read_file_time(path: Path) -> np.datetime64:
    path = path if path.exists() else _find_other_form(path)
    return np.datetime64(int(path.stat().st_mtime), "s") if path.exists() else np.datetime64("NaT", "s")


def _convert_zip_time(time: tuple[int, ...]) -> np.datetime64:
    year, month, day, hour, minute, second = time
    try:
        return np.datetime64(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", "s")
    except ValueError:  # an archive may hold any numbers
        return np.datetime64("NaT", "s")


def _find_other_form(path: Path) -> Path:
    """The file that a list names in another Unicode form than the disk does, as lists from elsewhere do."""
    others = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in others if other.exists()), path)


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Never more than the size that the archive says, which is checked before."""
    check_size(entry.file_size)
    with archive.open(entry) as opened:
        return b"".join(iter(partial(opened.read, CHUNK_BYTES), b""))


def _read_list(
    root: Path, prefix: str, path_column: str, label_column: str, encoding: str | None, say: Say
) -> list[ImageFile]:
    table = read_table(root, {path_column, label_column}, encoding=encoding, say=say)
    columns: Mapping[str, NDArray[Any]] = {}
    if holds_pairs(table, label_column):
        names, labels = (part.tolist() for part in group_pairs(table, root))
    else:
        names = read_text_column(table, path_column, root).tolist()
        labels = read_text_column(table, label_column, root).tolist()
        columns = read_metadata_columns(table, {path_column, label_column}, root, say)
    return [
        ImageFile(
            prefix + name,
            label,
            partial(_read_file, root.parent / name),
            {column: values[row] for column, values in columns.items()},
            PurePosixPath(name).parent.as_posix().removeprefix("."),
            partial(_read_file_time, root.parent / name),
        )
        for row, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
