"""Image files in class folders, zips that are read in place, and lists of paths."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.errors import InputError
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import RefusedInput
from training.data.pair_labels import group_pairs, holds_pairs
from training.data.tables import LIST_SUFFIXES, read_metadata, read_table, read_text_column

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
MAX_FILE_BYTES = 256 << 20  # of a file: the most pixels that Pillow decodes without a warning, uncompressed
CHUNK_BYTES = 4096  # bytes of an archive that are decompressed at once, to a few megabytes at the most


@dataclass(frozen=True)
class ImageFile:
    """One image that can be opened again and again; ``name`` is how messages and ids call it."""

    name: str
    label: str
    read: Callable[[], bytes]
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder that holds the class's folder: an alphabet, a writer, a camera; empty at the root."""
        return self.label.rpartition("/")[0]

    def open(self) -> Image.Image:
        """Decode the whole image; raises InputError naming the file when it is broken or too large."""
        with self.name_errors(), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(self.read()))
            image.load()
            return image

    def read_pixels(self, preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
        """The network's input, not yet normalised: uint8 [channels, h, w]; raises InputError as ``open``."""
        with self.name_errors():
            return preprocessing.compute_pixels(self.open())

    @contextmanager
    def name_errors(self) -> Iterator[None]:
        """Turn whatever decoders raise into an InputError that names the file."""
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError(f"{self.name} is too large to be decoded safely: scale it down.") from None
        except UnidentifiedImageError:
            raise self._build_error("it is not an image that can be read") from None
        except RefusedInput as refused:
            raise self._build_error(refused.reason.rstrip(".")) from None
        except (InputError, MemoryError):
            raise
        except Exception as error:  # decoders and archives raise whatever they like on broken files
            raise self._build_error(str(error) or type(error).__name__) from None

    def _build_error(self, reason: str) -> InputError:
        return InputError(f"{self.name} is broken: {reason}. Remove it, or train with data.broken=skip.")


def find_images(
    paths: Sequence[Path], path_column: str = "path", label_column: str = "label"
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
        if root.is_dir():
            images = _list_folder(root, prefix)
        elif root.suffix in LIST_SUFFIXES:
            images = _read_list(root, prefix, path_column, label_column)
        elif zipfile.is_zipfile(root):
            images = _list_zip(root, prefix)
        elif root.exists():
            raise InputError(f"{root} is neither a folder, a zip archive nor a list (.csv, .parquet).")
        else:
            raise InputError(f"{root} does not exist: data.path must be a folder of class folders or a zip.")
        if not images:
            raise InputError(
                f"{root} holds no images: expected a folder per class with files such as .png or .jpg."
            )
        loose = next((image for image in images if image.label in ("", ".")), None)
        if loose:
            raise InputError(f"{root}: {loose.name} is in no class folder: expected CLASS/{loose.name}.")
        for name in (str(root), *(image.name for image in images)):
            shown = name.encode(errors="backslashreplace").decode()
            if shown != name:
                raise InputError(f"The name of {shown} is not written in UTF-8: rename it.")
        files += images
    return files


def _list_folder(root: Path, prefix: str) -> list[ImageFile]:
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    relative = [path.relative_to(root) for path in files]
    return [
        ImageFile(prefix + name.as_posix(), name.parent.as_posix(), partial(_read_file, path))
        for name, path in zip(relative, files, strict=True)
        if not any(part.startswith(".") for part in name.parts)
    ]


def _list_zip(root: Path, prefix: str) -> list[ImageFile]:
    try:
        archive = zipfile.ZipFile(root)
    except Exception as error:  # zipfile raises whatever it likes on a broken table of contents
        raise InputError(f"{root} is a damaged zip archive: {error}. Make it again.") from None
    images = []
    for entry in sorted(archive.infolist(), key=lambda info: info.filename):
        path = PurePosixPath(entry.filename)
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden and not entry.is_dir():
            read = partial(_read_entry, archive, entry)
            images.append(ImageFile(prefix + entry.filename, path.parent.as_posix(), read))
    return images


def _read_file(path: Path) -> bytes:
    _check_size(path.stat().st_size)
    return path.read_bytes()


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Never more than the size that the archive says, which is checked before."""
    _check_size(entry.file_size)
    with archive.open(entry) as opened:
        return b"".join(iter(partial(opened.read, CHUNK_BYTES), b""))


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise Image.DecompressionBombError(f"{size} bytes, at most {MAX_FILE_BYTES} are read")


def _read_list(root: Path, prefix: str, path_column: str, label_column: str) -> list[ImageFile]:
    table = read_table(root, {path_column, label_column})
    columns: Mapping[str, NDArray[Any]] = {}
    if holds_pairs(table, label_column):
        names, labels = (part.tolist() for part in group_pairs(table, root))
    else:
        names = read_text_column(table, path_column, root).tolist()
        labels = read_text_column(table, label_column, root).tolist()
        columns = read_metadata(table, {path_column, label_column}, root)
    return [
        ImageFile(
            prefix + name,
            label,
            partial(_read_file, root.parent / name),
            {column: values[row] for column, values in columns.items()},
        )
        for row, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
