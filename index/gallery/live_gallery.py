"""A gallery that changes: writes go to the item store and are found at once, rebuilds happen behind."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import IO, Any, Self

import numpy as np

from common.atomic_files import fsync_folder
from common.errors import BundleError, InputError
from common.progress import Track, silent
from decision.decider import Decider
from index.bundle import Bundle, read_bundle
from index.engines.registry import rebuild_config
from index.gallery.background_worker import Worker
from index.gallery.backup import backup
from index.gallery.following_gallery import CHECKED_FILE, SEEDED_FROM, FollowingGallery, item_store
from index.gallery.gallery import Closed
from index.gallery.generation_folders import EMPTY
from index.gallery.overlay import Overlay, collected, stored_items
from index.items.stored_item import StoredItem
from index.search.generation import VECTORS_FILE, Generation
from index.search.query_vectors import query_rows
from index.store.database import StoreInUse, StoreState
from index.store.item_store import DATABASE_FILE, Changes, ItemStore
from index.store.service_records import Records
from index.verified_files import Checked

__all__ = ["Limits", "LiveGallery", "StoreInUse"]

LOCK_FILE = "writer.lock"


@dataclass(frozen=True)
class Limits:
    """When a new generation is built: so many rows written since, or such a share of rows dead.

    After one that failed, for instance because the disk is full, the next is begun this much later.
    """

    buffer_rows: int = 4_096
    dead_share: float = 0.2
    seed_block: int = 8_192
    retry_seconds: float = 60.0


class LiveGallery(FollowingGallery):
    """The one writer of a data folder; searches go on beside it from many threads.

    A write returns once it is on disk, and the next search finds it. The folder belongs to one model.
    """

    def __init__(
        self, bundle: Bundle, folder: Path, store: ItemStore, lock: IO[bytes], limits: Limits
    ) -> None:
        super().__init__(bundle, folder, store)
        self._lock_file = lock
        self._limits = limits
        self._rebuilding = Lock()  # taken before _writing, never while holding it
        self._rebuilder = Worker(
            "limen-rebuild", lambda: self.rebuild(), self._due, self._writing, limits.retry_seconds
        )
        self._closing = False
        self._unsure = False
        self.records = Records(store, self._write)

    @classmethod
    def open(  # type: ignore[override]
        cls,
        path: Path | str,
        data: Path | str,
        limits: Limits = Limits(),
        track: Track = silent,
        database: str | None = None,
    ) -> Self:
        """Open a bundle with a data folder; the first time its items are copied into the item store.

        Args:
            database: where items are kept if not in the folder, see ``index.following.item_store``.

        Raises:
            StoreInUse: another process writes there.
            BundleError: damaged files, or a folder that belongs to another model.
        """
        folder = Path(data)
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)
        lock = (folder / LOCK_FILE).open("ab")
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreInUse(
                    f"{folder} is being written by another process: a data folder has one writer. "
                    "Stop the other, or give this one a folder of its own."
                ) from None
            checked = Checked(folder / CHECKED_FILE)
            bundle = read_bundle(Path(path), checked)
            store = item_store(folder, bundle.manifest.model_hash, database)
            try:
                gallery = cls(bundle, folder, store, lock, limits)
                gallery._load(checked, track)
                with suppress(OSError):  # a full disk; then files are hashed again at the next start
                    checked.save()
            except BaseException:
                store.close()
                raise
        except BaseException:
            lock.close()
            raise
        return gallery

    def close(self) -> None:
        """Wait for a rebuild or backup under way, let go of the folder; later questions are refused."""
        with self._writing:
            self._closing = True
        self.wait()
        with self._rebuilding, self._writing:
            super().close()
            self._lock_file.close()

    def wait(self) -> None:
        """Return once no rebuild is under way behind."""
        self._rebuilder.wait()

    @property
    def rebuild_error(self) -> str | None:
        """Why the last rebuild behind failed; None if it did not."""
        return self._rebuilder.error

    def _behind(self) -> bool:
        return False  # its own writes are shown before they return

    def upsert(self, items: Sequence[StoredItem]) -> int:
        """Write items, replacing those with the same ids; returns how many are new.

        On return they are on disk and found by the next search.

        Raises:
            InputError: an item that cannot be used; nothing was written.
            StoreFailed: the database could not take it; it was not acknowledged.
        """
        if not items:
            return 0
        for number, item in enumerate(items):
            if np.shape(item.vector) != (self.dim,):
                raise InputError(
                    f"items.{number}.vector: the index holds vectors of {self.dim} numbers, "
                    f"found {'x'.join(map(str, np.shape(item.vector)))}."
                )
        rows = query_rows(np.stack([item.vector for item in items]), self.dim, "items")
        items = [replace(item, vector=row) for item, row in zip(items, rows, strict=True)]
        with self._write():
            new = self._store.upsert(items, self.manifest.model_hash)
            self._happened(Changes(items, [item.id for item in items]))
        self._rebuilder.start_if_due()
        return new

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id, and feedback about them; returns how many items were there.

        On return they are gone from the database and from searches.
        """
        return len(self._delete(ids))

    def delete_where(self, condition: Mapping[str, Any]) -> list[str]:
        """Delete the items a filter holds for, and feedback about them; returns their ids."""
        if not condition:
            raise InputError("filter: an empty filter holds for every item; name what to delete.")
        with self._writing:
            return self._delete(self._matching(condition))

    def _delete(self, ids: Sequence[str]) -> list[str]:
        with self._write():
            gone = self._store.delete(ids)
            self._happened(Changes([], gone))
        self._rebuilder.start_if_due()
        return gone

    def _matching(self, condition: Mapping[str, Any]) -> list[str]:
        view = self._view
        ids: list[str] = []
        for generation, alive in view.parts:
            ids += generation.items.ids.take(generation.matching(condition, alive, view.fields))
        return ids

    def _prepare(self, decider: Decider) -> None:
        known = {one.densities for one in self._deciders}
        with nullcontext() if decider.densities in {None, *known} else self._rebuilding:
            super()._prepare(decider)

    def rebuild(self, track: Track = silent) -> None:
        """Build a new generation from the item store and swap it in; searches and writes go on meanwhile.

        Of items that were deleted before, nothing is left in the folder's files then.
        """
        with self._rebuilding:
            with self._write():
                sequence = self._store.sequence
                n = self._store.count()
                if n == 0:
                    self._swap(None, EMPTY, sequence)
                    return
                blocks = self._store.read_all()
                first = next(blocks)

            config = rebuild_config(self.manifest.index, self.manifest.counts.distinct_vectors)

            def build(folder: Path) -> Generation:
                items = collected(chain([first], blocks), n, self.dim, folder / VECTORS_FILE)
                return Generation.build(items, config, self._densities(items.vectors), track)

            name, opened = self._generations.write(sequence, n, build)
            try:
                with self._guarded():
                    self._swap(opened, name, sequence)
            except BaseException:
                with self._writing:
                    if not self._unsure:  # then what was seen last is what the database names
                        self._generations.keep_only(self._seen.generation)
                raise

    def _swap(self, main: Generation | None, name: str, sequence: int) -> None:
        self._store.switch(name, sequence)
        self._catch_up_with(main, name, sequence)
        self._generations.keep_only(name)
        self._store.tidy()

    def _catch_up_with(self, main: Generation | None, name: str | None, sequence: int) -> None:
        """Show a generation with what was written and deleted after its sequence number."""
        state, changes = self._store.changes_after(sequence, name)
        assert changes is not None
        self._show(Overlay.of(main).after(changes), state)

    def backup(self, out: Path) -> None:
        """A consistent copy of all that the folder keeps, taken while reads and writes go on.

        Raises:
            InputError: ``out`` exists.
        """
        with self._rebuilding:
            self._check_open()
            backup(self._folder, out, self._store)

    def _load(self, checked: Checked, track: Track) -> None:
        file = self._folder / DATABASE_FILE
        if self._store.file is None and file.exists() and self._store.setting("model_hash") is None:
            self._store.fill_from(file)  # as after `limen restore`
            file.unlink()
        if self._store.setting("model_hash") is None:
            self._store.seed(
                stored_items(self._bundle.generation(), self._limits.seed_block, track),
                self.manifest.model_hash,
                {point.id: point.to_json() for point in self._bundle.points.values()},
                {SEEDED_FROM: self.manifest.data_hash},
            )
        self._check_owner()
        new = self._bundle.points.keys() - self._store.points().keys()
        if new:
            self._store.set_points({name: self._bundle.points[name].to_json() for name in new})
        state = self._store.state()
        try:
            main = self._named(state.generation, checked)
        except BundleError:  # damaged, or the bundle is another one now: it can be built again
            self.rebuild(track)
            return
        self._catch_up_with(main, state.generation, state.base)
        self._generations.keep_only(state.generation)

    def _happened(self, changes: Changes) -> None:
        seen = StoreState(self._seen.generation, self._seen.base, self._store.sequence)
        self._show(self._overlay.after(changes), seen)

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One write at a time, and none once the gallery is being closed."""
        with self._guarded():
            if self._closing:
                raise Closed(f"{self._folder} was closed: open it again to write.")
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever fails within, readers are shown what the database holds: it is the truth."""
        with self._writing:
            if self._unsure:
                self._catch_up()
                self._unsure = False
            try:
                yield
            except InputError:
                raise
            except BaseException:
                self._unsure = True
                with suppress(Exception):
                    self._catch_up()
                    self._unsure = False
                raise

    def _due(self) -> bool:
        if self._closing:
            return False
        view = self._view
        rows = 0 if view.main is None else len(view.main)
        written = len(self._overlay.written)
        return written > self._limits.buffer_rows or view.dead > self._limits.dead_share * rows
