"""Thumbnails of a bundle's items: one after the other in a file, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from api_schemas.manifest import THUMBNAIL_ENDS_FILE, THUMBNAILS_FILE
from common.array_types import Int64s
from common.errors import BundleError


@dataclass(frozen=True, eq=False)
class ThumbnailFile:
    """The thumbnails in row order; opening takes no time however many there are.

    Attributes:
        ends: int64 [n], the byte at which each one ends; an item without has the end of the one before.
    """

    path: Path
    ends: Int64s

    @classmethod
    def open(cls, folder: Path, rows: int) -> ThumbnailFile | None:
        """The thumbnails of a bundle of so many rows, None if it has none; raises BundleError if damaged."""
        path = folder / THUMBNAILS_FILE
        if not path.is_file():
            return None
        try:
            ends = np.load(folder / THUMBNAIL_ENDS_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder / THUMBNAIL_ENDS_FILE} cannot be read: {error}.") from None
        if ends.dtype != np.int64 or ends.shape != (rows,) or int(ends[-1]) != path.stat().st_size:
            raise BundleError(f"{folder / THUMBNAIL_ENDS_FILE} does not fit {path} and {rows} items.")
        return cls(path, ends)

    def get(self, row: int) -> bytes | None:
        """The thumbnail of a row, or None."""
        start, end = 0 if row == 0 else int(self.ends[row - 1]), int(self.ends[row])
        if not 0 <= start < end <= int(self.ends[-1]):
            return None
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def iterate(self, block: int) -> Iterator[list[bytes | None]]:
        """All of them, ``block`` rows at a time."""
        for start in range(0, len(self.ends), block):
            yield [self.get(row) for row in range(start, min(start + block, len(self.ends)))]


def write_thumbnails(folder: Path, thumbnails: Iterable[bytes | None]) -> None:
    """Write the files of a bundle from thumbnails in row order; none where no item has one."""
    ends: list[int] = []
    end = 0
    with (folder / THUMBNAILS_FILE).open("wb") as file:
        for thumbnail in thumbnails:
            if thumbnail:
                file.write(thumbnail)
                end += len(thumbnail)
            ends.append(end)
    if end:
        np.save(folder / THUMBNAIL_ENDS_FILE, np.array(ends, dtype=np.int64))
    else:
        (folder / THUMBNAILS_FILE).unlink()
