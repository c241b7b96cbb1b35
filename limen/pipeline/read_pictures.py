"""Thumbnails of the rows of an embeddings file, from a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.console import say, track
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from encoder import RefusedInput
from encoder.inputs.preprocessing import LIMITS
from encoder.thumbnails import make_picture

PATH_COLUMN = "path"


def check_pictures(folder: Path | None, side: int | None) -> None:
    """Raises InputError unless both a folder and a side are given, or neither."""
    if side is not None and folder is None:
        raise InputError("--thumbnails: an embeddings file holds no pictures; add --pictures FOLDER.")
    if folder is not None and not folder.is_dir():
        raise InputError(f"--pictures {folder} is not a folder: give the one that the pictures lie in.")


def read_pictures(gallery: EmbeddingSet, folder: Path, side: int) -> Iterator[bytes | None]:
    """The thumbnail of each item, in their order; None where the folder has no picture of it, which is said.

    A picture lies at the metadata column ``path``, else at the item's id, below the folder and never outside.
    """
    names = gallery.metadata.get(PATH_COLUMN, gallery.ids)
    root = folder.resolve()
    without = 0
    for name in track(names.tolist(), "thumbnails", len(names)):
        thumbnail = _read_picture(root, str(name), side)
        without += thumbnail is None
        yield thumbnail
    if without:
        say(f"{without:,} of {len(names):,} items have no picture in {folder} that can be read.")


def _read_picture(root: Path, name: str, side: int) -> bytes | None:
    try:
        file = (root / name).resolve()
        if not file.is_relative_to(root) or not 0 < file.stat().st_size <= LIMITS.image_bytes:
            return None
        return make_picture(file.read_bytes(), side)
    except (OSError, ValueError, RefusedInput):  # no such file, no name of one, or no picture
        return None
