"""Where the items of a gallery come from: a bundle, which never changes, or a data folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from common.errors import LimenError
from decision.decider import Decider
from index.bundle import Bundle
from index.gallery.overlay import add_densities
from index.items.stored_item import StoredItem
from index.search.gallery_view import GalleryView
from index.search.generation import Generation


class Closed(LimenError):
    """A gallery was asked or written to after it was closed."""


class GalleryItems(Protocol):
    """Where a gallery's items come from: a bundle, or a data folder."""

    @property
    def view(self) -> GalleryView:
        """What a question sees, from its beginning to its end; raises Closed."""

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""

    def get(self, item_id: str) -> StoredItem | None:
        """An item as it was written, or None."""

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""

    def prepare(self, decider: Decider) -> None:
        """Compute the densities of all items that a point needs, before it decides."""

    def close(self) -> None:
        """Let go of all files."""


class BundleItems:
    """See ``GalleryItems``."""

    def __init__(self, bundle: Bundle) -> None:
        self._path: Path = bundle.path
        self._view: GalleryView | None = GalleryView(bundle.generation())

    @property
    def view(self) -> GalleryView:
        """The bundle's generation; raises Closed."""
        view = self._view
        if view is None:
            raise Closed(f"The gallery of {self._path} was closed: open it again.")
        return view

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        return self.view.stats()

    def get(self, item_id: str) -> StoredItem | None:
        """An item, or None."""
        located = self.view.locate(item_id)
        return None if located is None else _read_item(*located)

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        main = self.view.main
        if main is None:
            return []
        return [_read_item(main, row) for row in main.items.rows_after(after or "", limit)]

    def prepare(self, decider: Decider) -> None:
        """Compute the densities of all items that a point needs, before it decides."""
        view = self.view
        if view.main is not None:
            self._view = replace(view, main=add_densities(view.main, [decider]))

    def close(self) -> None:
        """Let go of the mapped files."""
        self._view = None


def _read_item(generation: Generation, row: int) -> StoredItem:
    items = generation.items
    return StoredItem(
        items.ids[row],
        items.classes[items.label_codes[row]],
        np.array(generation.vectors[row]),
        items.metadata_of(row),
    )
