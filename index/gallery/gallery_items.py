"""Source of a gallery's items: a bundle, which never changes, or a data folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import LimenError
from common.progress import Track, silent
from decision.decider import Decider
from index.bundle import Bundle
from index.gallery.overlay import prepare_generation
from index.items.stored_item import StoredItem
from index.search.gallery_view import GalleryView
from index.search.generation import Generation


class Closed(LimenError):
    """A gallery was queried or written to after it was closed."""


class GalleryItems(ABC):
    """Source of a gallery's items; the view changes as a whole, and is None once it was closed."""

    def __init__(self, path: Path, shown: GalleryView) -> None:
        self.path = path
        self._shown: GalleryView | None = shown

    @property
    def view(self) -> GalleryView:
        """The snapshot that a query sees, from its beginning to its end; raises Closed."""
        view = self._shown
        if view is None:
            raise Closed(f"{self.path} was closed: open it again.")
        return view

    def compute_stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        return self.view.compute_stats()

    @abstractmethod
    def get(self, item_id: str) -> StoredItem | None:
        """An item as it was written, or None."""

    @abstractmethod
    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The thumbnails, by id, of those of the items that have one."""

    @abstractmethod
    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""

    @abstractmethod
    def prepare(self, decider: Decider) -> None:
        """Compute what a point needs of all items and classes, before it decides."""

    def close(self) -> None:
        """Release all files."""
        self._shown = None


class GenerationItems(GalleryItems):
    """The items of a generation, which never change; without thumbnails."""

    def __init__(self, path: Path, generation: Generation) -> None:
        super().__init__(path, GalleryView(generation))

    def get(self, item_id: str) -> StoredItem | None:
        located = self.view.locate(item_id)
        return None if located is None else _read_item(*located)

    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        return {}

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        main = self.view.main
        assert main is not None
        return [_read_item(main, row) for row in main.items.get_rows_after(after or "", limit)]

    def prepare(self, decider: Decider) -> None:
        main = self.view.main
        assert main is not None
        self._shown = replace(self.view, main=prepare_generation(main, [decider]))


class BundleItems(GenerationItems):
    """The items of a bundle, which never change."""

    def __init__(self, bundle: Bundle, track: Track = silent) -> None:
        super().__init__(bundle.path, bundle.open_generation(track))
        self._thumbnails = bundle.open_thumbnails()

    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        if self._thumbnails is None:
            return {}
        located = {item_id: self.view.locate(item_id) for item_id in ids}
        read = {name: self._thumbnails.get(place[1]) for name, place in located.items() if place is not None}
        return {item_id: thumbnail for item_id, thumbnail in read.items() if thumbnail is not None}


def _read_item(generation: Generation, row: int) -> StoredItem:
    items = generation.items
    return StoredItem(
        items.ids[row],
        items.classes[items.label_codes[row]],
        np.array(generation.vectors[row]),
        items.get_metadata(row),
    )
