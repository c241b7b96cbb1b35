"""The items of a data folder as a gallery reads them, while a writer changes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock, RLock

from common.errors import BundleError
from common.progress import Track, silent
from decision.decider import Decider
from index.bundle import Bundle
from index.gallery.gallery_items import GalleryItems
from index.gallery.generation_folders import EMPTY, Generations
from index.gallery.overlay import Overlay, score_classes
from index.items.stored_item import StoredItem
from index.search.gallery_view import GalleryView
from index.search.generation import Generation
from index.store.document_store import StoreState
from index.store.item_store import DATABASE_FILE, ItemStore
from index.verified_files import HashCache

HASHES_FILE = "checked.json"
BUILT_FILE = "current.json"
SEEDED_FROM = "seeded_from"  # setting: the data hash of the bundle whose items the store began with


class DataFolder(GalleryItems):
    """The items of a data folder.

    Args:
        follows: check before each query whether another process has written, and show that.

    Attributes:
        writing: held while what is shown changes.
        rebuilding: held while a generation is built or a backup taken; taken before ``writing``.
        deciders: the points that may decide.
    """

    def __init__(self, bundle: Bundle, path: Path, store: ItemStore, *, follows: bool) -> None:
        super().__init__(path, GalleryView(None))
        self.store = store
        self.dim = bundle.manifest.embedding_dim
        self.generations = Generations(path, self.dim, bundle.manifest.model_hash)
        self.writing = RLock()
        self.rebuilding = Lock()
        self.seen = StoreState(EMPTY, 0, 0)
        self._bundle = bundle
        self._follows = follows
        self.deciders: Sequence[Decider] = [bundle.build_decider(point) for point in bundle.points.values()]
        self.overlay = Overlay.from_generation(None, self.deciders)

    @property
    def view(self) -> GalleryView:
        """The snapshot that a query sees: all writes acknowledged before; raises Closed."""
        if self._follows and self._shown is not None and self.store.read_state() != self.seen:
            with self.writing:
                if self._shown is not None:
                    self.catch_up()
        return super().view

    def compute_stats(self) -> dict[str, int | str]:
        counts, seen = self.view.compute_stats(), self.seen
        return {**counts, "sequence": seen.newest, "generation": seen.generation or "bundle"}

    def get(self, item_id: str) -> StoredItem | None:
        self.check_open()
        return self.store.get(item_id)

    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        self.check_open()
        return self.store.read_thumbnails(ids)

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        self.check_open()
        return self.store.page(after, limit)

    def check_open(self) -> None:
        """Raises Closed once the folder was closed."""
        _ = super().view

    def close(self) -> None:
        with self.writing:
            super().close()
            self.store.close()

    def prepare(self, decider: Decider) -> None:
        if self._is_prepared(decider):
            return
        with self.rebuilding, self.writing:
            if not self._is_prepared(decider):
                self.deciders = [*self.deciders, decider]
                self.show(self.overlay.prepare(self.deciders), self.seen)

    def _is_prepared(self, decider: Decider) -> bool:
        known = [known.scorer.score for known in self.deciders]
        return decider.scorer.score in known or not (decider.scorer.density_key or score_classes([decider]))

    def check_owner(self) -> None:
        """Raises BundleError for a folder without items or of another model."""
        owner, model_hash = self.store.read_setting("model_hash"), self._bundle.manifest.model_hash
        if owner is None:
            raise BundleError(f"{self.path} holds no items yet: let a writer open it first.")
        if owner != model_hash:
            raise BundleError(
                f"{self.path} holds items of model {owner[:12]}, the bundle is of model {model_hash[:12]}: "
                "use another data folder for this model."
            )

    def catch_up(self, hashes: HashCache | None = None) -> None:
        """Show what the database holds now."""
        overlay, seen = self.overlay, self.seen
        state, changes = self.store.read_changes_after(seen.newest, seen.generation)
        while changes is None:
            try:
                main = self.open_generation(state.generation, hashes)
                overlay = Overlay.from_generation(main, self.deciders)
            except BundleError:
                later = self.store.read_state()
                if later.generation == state.generation:
                    raise
                state = later  # removed while it was being opened, for a newer one
                continue
            generation = state.generation
            state, changes = self.store.read_changes_after(state.base, generation)
        self.store.reload()
        self.show(overlay.apply(changes), state)

    def open_generation(
        self, name: str | None, hashes: HashCache | None = None, track: Track = silent
    ) -> Generation | None:
        """The generation of a name, its files checked; raises BundleError if it is not whole."""
        if name == EMPTY:
            return None
        if name is not None:
            return self.generations.open(name, hashes, track)
        if self.store.read_setting(SEEDED_FROM) == self._bundle.manifest.data_hash:
            return self._bundle.open_generation(track)
        raise BundleError(f"{self.path} was begun with another bundle: let a writer open it with this one.")

    def show(self, overlay: Overlay, seen: StoreState) -> None:
        """Let readers see a state: what can fail is done first, then all of it is swapped in."""
        view = overlay.build_view(self.dim, self.store.fields)
        self.overlay, self._shown = overlay, view
        self.seen = seen  # last: a reader that finds it new finds the view new too


def open_item_store(
    folder: Path, model_hash: str, database: str | None, *, read_only: bool = False
) -> ItemStore:
    """The item store of a data folder.

    Args:
        database: None for SQLite in the folder, or the address of a PostgreSQL database, in which every
            model has a schema of its own; the folder then keeps what can be built again. Any number of
            processes may write to a schema, each with a folder of its own. A new schema takes over the items
            of a SQLite file in the folder.
    """
    if database is None:
        return ItemStore(folder / DATABASE_FILE, read_only=read_only)
    built = folder / BUILT_FILE
    return ItemStore(database, f"limen_{model_hash[:16]}", read_only=read_only, built=built)
