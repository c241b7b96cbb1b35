"""A gallery read from a data folder that another process may be writing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Self

from common.array_types import Float32s, UnitVectors
from common.errors import BundleError
from decision.decider import Decider
from index.bundle import Bundle, read_bundle
from index.gallery.gallery import Closed, Gallery
from index.gallery.generation_folders import EMPTY, Generations
from index.gallery.overlay import Overlay, with_densities
from index.items.stored_item import StoredItem
from index.search.gallery_view import View
from index.search.generation import Generation
from index.store.database import StoreState
from index.store.item_store import DATABASE_FILE, ItemStore
from index.verified_files import Checked

CHECKED_FILE = "checked.json"
SEEDED_FROM = "seeded_from"  # setting: the data hash of the bundle whose items the store began with


class FollowingGallery(Gallery):
    """One of many readers: every question sees all writes that were acknowledged before it was asked.

    It asks the database before each question whether something happened, and takes in what did: items
    written and deleted, or a new generation. It never writes.
    """

    def __init__(self, bundle: Bundle, folder: Path, store: ItemStore) -> None:
        super().__init__(bundle, View(None))
        self._folder = folder
        self._store = store
        self._generations = Generations(folder, bundle.manifest.embedding_dim)
        self._deciders = [Decider(point, bundle.scorer(point)) for point in bundle.points.values()]
        self._writing = RLock()
        self._overlay = Overlay.of(None)
        self._seen = StoreState(EMPTY, 0, 0)

    @classmethod
    def open(  # type: ignore[override]
        cls, path: Path | str, data: Path | str, database: str | None = None
    ) -> Self:
        """Open a bundle with a data folder that a writer has filled.

        Args:
            database: where the items are if not in the folder, see ``item_store``.

        Raises:
            BundleError: damaged files, a folder that belongs to another model, or one no writer has opened.
        """
        folder = Path(data)
        checked = Checked(folder / CHECKED_FILE)
        bundle = read_bundle(Path(path), checked)
        store = item_store(folder, bundle.manifest.model_hash, database, read_only=True)
        try:
            gallery = cls(bundle, folder, store)
            gallery._check_owner()
            gallery._catch_up(checked)
        except BaseException:
            store.close()
            raise
        return gallery

    def close(self) -> None:
        """Let go of the mapped files and the database."""
        with self._writing:
            super().close()
            self._store.close()

    @property
    def _view(self) -> View:
        if self._behind():
            with self._writing:
                if self._shown is not None:
                    self._catch_up()
        return super()._view

    def _behind(self) -> bool:
        return self._shown is not None and self._store.state() != self._seen

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        counts, seen = super().stats(), self._seen
        return {**counts, "sequence": seen.newest, "generation": seen.generation or "bundle"}

    def get(self, item_id: str) -> StoredItem | None:
        """An item as it was written, or None."""
        self._check_open()
        return self._store.get(item_id)

    def page(self, after: str | None = None, limit: int = 100) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        self._check_open()
        return self._store.page(after, limit)

    def _prepare(self, decider: Decider) -> None:
        with self._writing:
            if decider.densities not in {None, *(one.densities for one in self._deciders)}:
                self._deciders = [*self._deciders, decider]
                main = self._overlay.main
                self._show(replace(self._overlay, main=main and self._complete(main)), self._seen)

    def _complete(self, main: Generation) -> Generation:
        return with_densities(main, self._deciders)

    def _densities(self, vectors: UnitVectors) -> dict[str, Float32s]:
        return {
            one.densities: one.scorer.densities(vectors)
            for one in self._deciders
            if one.densities is not None
        }

    def _check_owner(self) -> None:
        owner = self._store.setting("model_hash")
        if owner is None:
            raise BundleError(f"{self._folder} holds no items yet: let a writer open it first.")
        if owner != self.manifest.model_hash:
            raise BundleError(
                f"{self._folder} holds items of model {owner[:12]}, the bundle is of model "
                f"{self.manifest.model_hash[:12]}: use another data folder for this model."
            )

    def _catch_up(self, checked: Checked | None = None) -> None:
        """Show what the database holds now."""
        overlay, seen = self._overlay, self._seen
        state, changes = self._store.changes_after(seen.newest, seen.generation)
        while changes is None:
            try:
                overlay = Overlay.of(self._named(state.generation, checked))
            except BundleError:
                later = self._store.state()
                if later.generation == state.generation:
                    raise
                state = later  # removed while it was being opened, for a newer one
                continue
            generation = state.generation
            state, changes = self._store.changes_after(state.base, generation)
        self._store.reload()
        self._show(overlay.after(changes), state)

    def _named(self, generation: str | None, checked: Checked | None) -> Generation | None:
        """The generation of a name, its files checked; raises BundleError if it is not whole."""
        if generation == EMPTY:
            return None
        if generation is not None:
            return self._complete(self._generations.open(generation, checked))
        if self._store.setting(SEEDED_FROM) == self.manifest.data_hash:
            return self._bundle.generation()
        raise BundleError(
            f"{self._folder} was begun with another bundle: let a writer open it with this one."
        )

    def _show(self, overlay: Overlay, seen: StoreState) -> None:
        """Let readers see a state: what can fail is done first, then all of it is put in place."""
        view = overlay.view(self.dim, self._densities, self._store.fields)
        self._overlay, self._shown = overlay, view
        self._seen = seen  # last: who finds it new finds the view new too

    def _check_open(self) -> None:
        if self._shown is None:
            raise Closed(f"{self._folder} was closed: open it again.")


def item_store(folder: Path, model_hash: str, database: str | None, *, read_only: bool = False) -> ItemStore:
    """The item store of a data folder.

    Args:
        database: None for SQLite in the folder, or the address of a PostgreSQL database, in which every
            model has a schema of its own; the folder then keeps what can be built again. A new schema
            takes over the items of a SQLite file in the folder.
    """
    if database is None:
        return ItemStore(folder / DATABASE_FILE, read_only=read_only)
    return ItemStore(database, f"limen_{model_hash[:16]}", read_only=read_only)
