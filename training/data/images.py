"""Images on disk: a folder per class, or a zip of such folders that is read in place."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from api_schemas.preprocessing import ImageInput
from common.array_types import Bools
from common.errors import InputError
from common.progress import Track
from encoder.preprocessing import Preprocessing
from encoder.refused_input import RefusedInput
from training.data.items import Items
from training.data.pair_labels import classes_of, holds_pairs
from training.data.tables import LISTS, other_columns, read_table, text_column

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
LARGEST_SIDE = 64  # unless the configuration names a size: what two CPU cores train on in minutes
PROBED = 256
MOST_BYTES = 256 << 20  # of a file: the most pixels that Pillow decodes without a warning, uncompressed
AT_ONCE = 4096  # bytes of an archive that are decompressed at once, to a few megabytes at the most
T = TypeVar("T")


@dataclass(frozen=True)
class Looks:
    """Of an image: its longer side in pixels, whether it is square, and whether it has no colour."""

    side: int
    square: bool
    grey: bool


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
        with self._named(), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(self.read()))
            image.load()
            return image

    def looks(self) -> Looks:
        """What decides how images are read; raises InputError as ``open``."""
        with self._named():
            image = self.open()
            return Looks(max(image.size), image.width == image.height, _is_grey(image))

    def pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """The network's input, not yet normalised: uint8 [channels, h, w]; raises InputError as ``open``."""
        with self._named():
            return preprocessing.image_pixels(self.open())

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError(f"{self.name} is too large to be decoded safely: scale it down.") from None
        except UnidentifiedImageError:
            raise self._broken("it is not an image that can be read") from None
        except RefusedInput as refused:
            raise self._broken(refused.reason.rstrip(".")) from None
        except (InputError, MemoryError):
            raise
        except Exception as error:  # decoders and archives raise whatever they like on broken files
            raise self._broken(str(error) or type(error).__name__) from None

    def _broken(self, reason: str) -> InputError:
        return InputError(f"{self.name} is broken: {reason}. Remove it, or train with data.broken=skip.")


def find_images(
    paths: Sequence[Path], path_column: str = "path", label_column: str = "label"
) -> list[ImageFile]:
    """Every image below the given folders and in the given zips, by name; or those that a list names.

    A list without labels may hold pairs or triplets of paths instead (``training.data.pairs``).

    The class is the folder's path relative to the root, or the list's label. Names are prefixed with the
    root's name where several roots are given. A list's paths start at the folder of the list.

    Raises:
        InputError: a path that is missing, holds no image, or holds images outside any class folder; a
            damaged archive; a name that is no UTF-8.
    """
    found: list[ImageFile] = []
    for root in paths:
        prefix = f"{root.stem}/" if len(paths) > 1 else ""
        if root.is_dir():
            images = _in_folder(root, prefix)
        elif root.suffix in LISTS:
            images = _in_list(root, prefix, path_column, label_column)
        elif zipfile.is_zipfile(root):
            images = _in_zip(root, prefix)
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
        found += images
    return found


def _in_folder(root: Path, prefix: str) -> list[ImageFile]:
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    relative = [path.relative_to(root) for path in files]
    return [
        ImageFile(prefix + name.as_posix(), name.parent.as_posix(), partial(_read_file, path))
        for name, path in zip(relative, files, strict=True)
        if not any(part.startswith(".") for part in name.parts)
    ]


def _in_zip(root: Path, prefix: str) -> list[ImageFile]:
    try:
        archive = zipfile.ZipFile(root)
    except Exception as error:  # zipfile raises whatever it likes on a broken table of contents
        raise InputError(f"{root} is a damaged zip archive: {error}. Make it anew.") from None
    images = []
    for entry in sorted(archive.infolist(), key=lambda info: info.filename):
        path = PurePosixPath(entry.filename)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if path.suffix.lower() in SUFFIXES and not hidden and not entry.is_dir():
            read = partial(_read_entry, archive, entry)
            images.append(ImageFile(prefix + entry.filename, path.parent.as_posix(), read))
    return images


def _read_file(path: Path) -> bytes:
    _refuse_large(path.stat().st_size)
    return path.read_bytes()


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Never more than the size that the archive says, which is checked before."""
    _refuse_large(entry.file_size)
    with archive.open(entry) as opened:
        return b"".join(iter(partial(opened.read, AT_ONCE), b""))


def _refuse_large(size: int) -> None:
    if size > MOST_BYTES:
        raise Image.DecompressionBombError(f"{size} bytes, at most {MOST_BYTES} are read")


def _in_list(root: Path, prefix: str, path_column: str, label_column: str) -> list[ImageFile]:
    table = read_table(root, {path_column, label_column})
    columns: Mapping[str, NDArray[Any]] = {}
    if holds_pairs(table, label_column):
        names, labels = (part.tolist() for part in classes_of(table, root))
    else:
        names = text_column(table, path_column, root).tolist()
        labels = text_column(table, label_column, root).tolist()
        columns = other_columns(table, {path_column, label_column}, root)
    return [
        ImageFile(
            prefix + name,
            label,
            partial(_read_file, root.parent / name),
            {column: values[row] for column, values in columns.items()},
        )
        for row, (name, label) in enumerate(zip(names, labels, strict=True))
    ]


def index_of(files: Sequence[ImageFile]) -> Items:
    """Labels, ids, folders and a list's columns; row numbers stand in for the pixels."""
    shared = set(files[0].columns).intersection(*(file.columns for file in files))
    return Items(
        np.arange(len(files)),
        np.array([file.label for file in files]),
        np.array([file.name for file in files]),
        {
            "folder": np.array([file.folder for file in files]),
            **{name: np.array([file.columns[name] for file in files]) for name in sorted(shared)},
        },
    )


def rule_for(files: Sequence[ImageFile], size: int | None, colour: str) -> ImageInput:
    """How images of this kind become arrays, from a sample of the training images.

    Size: the median side, capped at 64. Mode: grey unless any sampled image has colour. Where most of
    the border has one grey level (paper), that level becomes 0, so that shifting in zeros is paper.
    """
    files = files[:: max(1, len(files) // PROBED)]
    # each is decoded twice: all of them at once would not fit into memory
    sample = _of_readable(files, ImageFile.looks)
    side = size or min(LARGEST_SIDE, round(float(np.median([looks.side for looks in sample]))))
    grey = colour == "grey" or (colour == "auto" and all(looks.grey for looks in sample))
    channels = 1 if grey else 3
    rule = ImageInput(
        mode="L" if grey else "RGB",
        height=side,
        width=side,
        resize="stretch" if all(looks.square for looks in sample) else "pad",
        mean=[0.0] * channels,
        std=[1.0] * channels,
    )
    preprocessing = Preprocessing(rule)
    return with_statistics(rule, np.stack(_of_readable(files, lambda file: file.pixels(preprocessing))))


def _of_readable(files: Sequence[ImageFile], read: Callable[[ImageFile], T]) -> list[T]:
    """What ``read`` gives for each but the broken files; the full read decides whether those are an error."""
    found: list[T] = []
    refusals: list[InputError] = []
    for file in files:
        try:
            found.append(read(file))
        except InputError as refusal:
            refusals.append(refusal)
    if not found:
        raise InputError(
            f"{files[0].name} and every other image that was tried is broken. {refusals[0]}"
        ) from None
    return found


def with_statistics(rule: ImageInput, pixels: NDArray[np.uint8]) -> ImageInput:
    """The rule with mean and deviation of uint8 [n, channels, h, w], rounded to six places."""
    scaled = pixels.astype(np.float64) / 255
    border = np.concatenate([scaled[..., 0, :], scaled[..., -1, :], scaled[..., 0], scaled[..., -1]], axis=-1)
    middle = np.median(border, axis=(0, 2))
    paper = (np.abs(border - middle[:, None]) < 1e-9).mean() > 0.5
    mean = middle if paper else scaled.mean(axis=(0, 2, 3))
    std = np.maximum(np.sqrt(((scaled - mean[:, None, None]) ** 2).mean(axis=(0, 2, 3))), 1e-3)
    return rule.model_copy(
        update={"mean": [round(float(m), 6) for m in mean], "std": [round(float(s), 6) for s in std]}
    )


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
        return True
    channels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    return bool((channels.max(axis=2) - channels.min(axis=2)).max() <= 8)


def read_images(
    files: Sequence[ImageFile],
    preprocessing: Preprocessing,
    *,
    skip_broken: bool,
    track: Track,
    say: Callable[[str], None],
) -> tuple[NDArray[np.uint8], Bools]:
    """Decode and resize all images.

    Returns:
        uint8 [n, channels, h, w] of the readable ones, and bool [len(files)]: which those are.

    Raises:
        InputError: a broken image, by name, unless ``skip_broken``; all of them broken.
    """
    pixels = np.empty((len(files), *preprocessing.shape), dtype=np.uint8)
    good = np.ones(len(files), dtype=bool)
    broken: list[str] = []
    for row, file in enumerate(track(files, "reading images", len(files))):
        try:
            pixels[row] = file.pixels(preprocessing)
        except InputError:
            if not skip_broken:
                raise
            good[row] = False
            broken.append(file.name)
    if not good.any():
        raise InputError(f"{files[0].name} and all others of the {len(files)} images are broken.")
    if broken:
        say(f"Skipped {len(broken)} broken images: {', '.join(broken[:5])}{', ...' if broken[5:] else ''}.")
    return (pixels if good.all() else pixels[good]), good
