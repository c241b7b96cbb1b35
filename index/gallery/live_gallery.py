"""The writer of a data folder: a write is on disk and found at once, rebuilds run in the background.

On a server others write to the same items, each with a folder of its own: their writes are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.http.gallery import Feedback
from api_schemas.manifest import THUMBNAILS_FILE, VECTORS_FILE
from common.atomic_files import fsync_folder
from common.errors import BundleError, InputError
from common.file_locks import FolderLock, InUse
from common.private_files import close_to_others, make_private_folder
from common.progress import Track, silent
from decision.decider import compute_densities
from embeddings.embedding_set import normalise_queries
from index.bundle import Bundle, read_bundle
from index.engines.registry import rebuild_config
from index.gallery.background_worker import BackgroundWorker
from index.gallery.backup import write_backup
from index.gallery.corrections import Corrections, read_correction
from index.gallery.data_folder import HASHES_FILE, SEEDED_FROM, DataFolder, open_item_store
from index.gallery.gallery import Gallery
from index.gallery.gallery_items import Closed
from index.gallery.generation_folders import EMPTY, GENERATIONS
from index.gallery.overlay import (
    Overlay,
    collect_items,
    iterate_items,
    iterate_thumbnails,
    prepare_generation,
)
from index.items.columns import ColumnKind
from index.items.metadata import USUAL_BOUNDS, MetadataBounds
from index.items.stored_item import StoredItem
from index.search.generation import Generation
from index.store.change_log import ChangeLog
from index.store.document_store import StoreInUse
from index.store.idempotency import AlreadyDone
from index.store.item_store import DATABASE_FILE, THUMBNAILS_FROM, Changes, TooFarBehind, Within
from index.store.monitoring_records import MonitoringRecords
from index.store.service_records import ServiceRecords
from index.store.unknown_records import UnknownRecords
from index.store.write_order import AuditFile, Withdrawn, WriteOrder
from index.verified_files import HashCache

LOCK_FILE = "writer.lock"
CHOSEN_INDEX = "index"  # setting: the configuration of the engine, in place of the bundle's


@dataclass(frozen=True)
class RebuildLimits:
    """Conditions of a rebuild: so many rows written since, or such a fraction of rows deleted.

    After one that failed, for instance because the disk is full, the next begins ``retry_seconds`` later.
    """

    buffer_rows: int = 4_096
    deleted_fraction: float = 0.2
    seed_block: int = 8_192
    retry_seconds: float = 60.0


class LiveGallery(AbstractContextManager["LiveGallery"]):
    """The one writer of a data folder; its ``gallery`` answers queries meanwhile, from many threads.

    A write returns once it is on disk, and the next search finds it. The folder belongs to one model.

    Attributes:
        gallery: the folder's items, for queries.
        records: what else is kept in the folder.
        monitoring: time series and alerts.
        unknowns: queries that were kept.
        corrections: what matches obey.
        followed: the changes of other processes that are shown.
    """

    def __init__(self, bundle: Bundle, folder: DataFolder, lock: FolderLock, limits: RebuildLimits) -> None:
        self.gallery = Gallery(bundle, folder)
        self.records = ServiceRecords(folder.store, self._write)
        self.unknowns = UnknownRecords(folder.store, self._write)
        self.corrections = Corrections.from_feedback(self.records.read_corrections())
        self._bundle = bundle
        self._folder = folder
        self._store = folder.store
        self.monitoring = MonitoringRecords(folder.store, self._write)
        self._lock = lock
        self._limits = limits
        self._rebuilder = BackgroundWorker(
            lambda: self.rebuild(), self._is_due, folder.writing, limits.retry_seconds
        )
        self._closing = False
        self._unsure = False
        self._known = self.followed = ChangeLog()

    @classmethod
    def open(
        cls,
        path: Path | str,
        data: Path | str,
        limits: RebuildLimits = RebuildLimits(),
        track: Track = silent,
        database: str | None = None,
        audit: AuditFile | None = None,
        bounds: MetadataBounds = USUAL_BOUNDS,
    ) -> Self:
        """Open a bundle with a data folder; the first time its items are copied into the item store.

        Args:
            database: where items are kept if not in the folder, see ``data_folder.open_item_store``.
            audit: the audit log's file, kept up with the writes that are ordered with a line for it.
            bounds: of the metadata that writes bring.

        Raises:
            StoreInUse: another process writes there.
            BundleError: damaged files, or a folder that belongs to another model.
        """
        folder = Path(data)
        make_private_folder(folder)
        fsync_folder(folder.parent)
        with ExitStack() as opened:
            try:
                lock = opened.enter_context(FolderLock(folder, LOCK_FILE))
            except InUse:
                raise StoreInUse(
                    f"{folder} is being written by another process: a data folder has one writer. "
                    "Stop the other, or give this one a folder of its own."
                ) from None
            for name in (GENERATIONS, HASHES_FILE, LOCK_FILE):  # as an earlier version left them
                close_to_others(folder / name)
            hashes = HashCache(folder / HASHES_FILE)
            bundle = read_bundle(Path(path), hashes)
            store = open_item_store(folder, bundle.manifest.model_hash, database)
            store.bounds = bounds
            opened.callback(store.close)
            live = cls(bundle, DataFolder(bundle, folder, store, follows=False), lock, limits)
            live._load(hashes, track)
            if audit is not None:
                store.set_audit_file(audit)
            with suppress(OSError):  # a full disk; then files are hashed again at the next start
                hashes.save()
            opened.pop_all()
        return live

    def close(self) -> None:
        """Wait for a rebuild or backup, release the folder; later queries raise Closed."""
        with self._folder.writing:
            self._closing = True
        self.wait()
        with self._folder.rebuilding, self._folder.writing:
            self._folder.close()
            self._lock.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Return once no background rebuild is running."""
        self._rebuilder.wait()

    @property
    def fields(self) -> dict[str, ColumnKind]:
        """The metadata fields that any item has, with their kinds."""
        return self._store.fields

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to the same items."""
        return self._store.database.is_server

    @property
    def n_behind(self) -> int:
        """Changes that are known and not shown yet."""
        return self._known.change - self.followed.change

    @property
    def rebuild_error(self) -> str | None:
        """Error of the last background rebuild; None if it succeeded."""
        return self._rebuilder.error

    def upsert(
        self,
        items: Sequence[StoredItem],
        order: WriteOrder | None = None,
        thumbnails: Mapping[str, bytes] | None = None,
        also: Within = lambda connection: None,
    ) -> int:
        """Write items, replacing those with the same ids; returns how many are new.

        The thumbnails of replaced items go; ``thumbnails`` are those of the new ones, by id.
        ``also`` is done in the same transaction.
        On return they are on disk and found by the next search. Raises InputError for an item that cannot be
        used, before anything is written, StoreFailed if the database could not take them, and Withdrawn if
        the order was withdrawn before that.
        """
        if not items:
            return 0
        dim = self._folder.dim
        for number, item in enumerate(items):
            if np.shape(item.vector) != (dim,):
                raise InputError(
                    f"items.{number}.vector: the index holds vectors of {dim} numbers, "
                    f"found {'x'.join(map(str, np.shape(item.vector)))}."
                )
        rows = normalise_queries(np.stack([item.vector for item in items]), dim, "items")
        items = [replace(item, vector=row) for item, row in zip(items, rows, strict=True)]
        with self._write():
            new = self._store.upsert(items, self._bundle.manifest.model_hash, order, thumbnails, also)
            self._show_changes(Changes(items, [item.id for item in items]))
        self._rebuilder.start_if_due()
        return new

    def delete(
        self,
        ids: Sequence[str],
        order: WriteOrder | None = None,
        also: Within = lambda connection: None,
    ) -> int:
        """Delete items and what is kept about them, from database and searches; returns how many there were.

        ``also`` is done first, in the same transaction.
        """
        return len(self._delete(ids, order, also))

    def delete_where(self, condition: Mapping[str, Any], order: WriteOrder | None = None) -> list[str]:
        """Delete the items a filter holds for, and feedback about them; returns their ids."""
        if not condition:
            raise InputError("filter: an empty filter holds for every item; name what to delete.")
        with self._folder.writing:
            view = self._folder.view
            rows = [(part, part.select_rows(condition, live, view.fields)) for part, live in view.parts]
            ids = [name for part, of_part in rows for name in part.items.ids.take(of_part)]
            return self._delete(ids, order)

    def _delete(
        self, ids: Sequence[str], order: WriteOrder | None, also: Within = lambda connection: None
    ) -> list[str]:
        with self._write():
            gone = self._store.delete(ids, order, also)
            if gone:
                self._show_changes(Changes([], gone))
            if len(self.corrections):
                self.reload_corrections()
        self._rebuilder.start_if_due()
        return gone

    def add_correction(self, subject: str, feedback: Feedback) -> None:
        """Let matches obey a correction that was stored; one that is there already is replaced."""
        with self._folder.writing:
            correction = read_correction(subject, feedback)
            if correction is None or subject in self.corrections:
                self.reload_corrections()
            else:
                self.corrections.add(correction)

    def reload_corrections(self) -> None:
        """Let matches obey the corrections that are stored now."""
        with self._folder.writing:
            self.corrections = Corrections.from_feedback(self.records.read_corrections())

    def follow(self) -> ChangeLog:
        """Show what other processes have written; returns the log up to which all is shown now."""
        log, folder = self._store.read_log(), self._folder
        self._known = log
        try:
            with folder.writing:
                if self._closing:
                    return log
                if log.newest != folder.seen.newest:
                    folder.catch_up()
                if log.corrections != self.followed.corrections:
                    self.reload_corrections()
        except TooFarBehind:
            self.rebuild()
        self.followed = log
        self._rebuilder.start_if_due()
        return log

    def rebuild(
        self,
        track: Track = silent,
        config: IndexConfig | None = None,
        prove: Callable[[Generation], None] = lambda generation: None,
    ) -> None:
        """Build a new generation from the item store and swap it in; searches and writes go on meanwhile.

        Of items that were deleted before, nothing is left in the folder's files then.

        Args:
            config: the engine of this and of later generations, instead of the bundle's.
            prove: raises what is wrong with the new generation, which is then not taken.
        """
        folder = self._folder
        with folder.rebuilding, ExitStack() as reading:
            sequence, n, blocks = reading.enter_context(self._store.open_snapshot())
            with self._write():
                if n == 0:
                    reading.close()
                    self._swap(None, EMPTY, sequence)
                    return
                self._store.reload()
                fields = self._store.fields

            chosen = {} if config is None else {CHOSEN_INDEX: config.model_dump_json()}
            config = config or self._read_index_config()

            def build(path: Path) -> Generation:
                items = collect_items(blocks, n, folder.dim, path / VECTORS_FILE, fields)
                reading.close()
                densities = compute_densities(folder.deciders, items.vectors, lambda: items.labels)
                return Generation.build(items, config, densities, track)

            unfinished = folder.generations.find_unfinished(sequence, config, folder.seen.generation)
            if unfinished is None:
                name, opened = folder.generations.write(sequence, n, build, track)
            else:
                reading.close()
                name, opened = unfinished, folder.generations.open(unfinished, track=track)
            try:
                opened = prepare_generation(opened, folder.deciders, track)
                prove(opened)
                with self._restore_on_failure():
                    self._swap(opened, name, sequence, chosen)
            except BaseException:
                with folder.writing:
                    if not self._unsure:  # then what was seen last is what the database names
                        folder.generations.keep_only(folder.seen.generation)
                raise

    def _read_index_config(self) -> IndexConfig:
        """The engine to build: what was chosen for this folder, or else what the bundle was built with."""
        chosen = self._store.read_setting(CHOSEN_INDEX)
        if chosen is not None:
            return IndexConfig.model_validate_json(chosen)
        manifest = self._bundle.manifest
        return rebuild_config(manifest.index, manifest.counts.distinct_vectors)

    def _swap(
        self, main: Generation | None, name: str, sequence: int, settings: Mapping[str, str] = {}
    ) -> None:
        self._store.switch(name, sequence, settings)
        self._show_generation(main, name, sequence)
        self._folder.generations.keep_only(name)
        self._store.forget_audit_lines()
        self._store.database.empty_log()
        self._rebuilder.error = None

    def _show_generation(self, main: Generation | None, name: str | None, sequence: int) -> None:
        """Show a generation with what was written and deleted after its sequence number."""
        state, changes = self._store.read_changes_after(sequence, name)
        assert changes is not None
        self._folder.show(Overlay.from_generation(main, self._folder.deciders).apply(changes), state)

    def check_store(self) -> None:
        """Raises StoreUnavailable unless the item store can be read."""
        self._folder.check_open()
        self._store.check_reachable()

    def backup(self, out: Path) -> None:
        """Write a consistent copy of all that the folder keeps while reads and writes go on."""
        with self._folder.rebuilding:
            self._folder.check_open()
            write_backup(self._folder.path, out, self._store if self._store.database.is_server else None)

    def _load(self, hashes: HashCache, track: Track) -> None:
        folder, bundle = self._folder, self._bundle
        file = folder.path / DATABASE_FILE
        is_new = self._store.read_setting("model_hash") is None
        if is_new and self._store.database.is_server and file.exists():
            self._store.fill_from(file)  # as after `limen restore`
            file.unlink()
        if self._store.read_setting("model_hash") is None:
            generation = bundle.open_generation(track)
            self._store.seed(
                iterate_items(generation, self._limits.seed_block, track),
                bundle.manifest.model_hash,
                {point.id: point.to_json() for point in bundle.points.values()},
                {SEEDED_FROM: bundle.manifest.data_hash},
                generation.items.count_fields(),
            )
        folder.check_owner()
        self._take_thumbnails()
        new = bundle.points.keys() - self._store.read_points().keys()
        if new:
            self._store.set_points({name: bundle.points[name].to_json() for name in new})
        state = self._store.read_state()
        try:
            main = folder.open_generation(state.generation, hashes, track)
            prepared = None if main is None else prepare_generation(main, folder.deciders, track)
            self._show_generation(prepared, state.generation, state.base)
        except (BundleError, TooFarBehind):
            # damaged, of another bundle, or long not followed: it can be built again
            self.rebuild(track)
            return
        folder.generations.keep_only(state.generation, resumable=state.newest)

    def _take_thumbnails(self) -> None:
        """Keep the bundle's thumbnails of the items that are still as they came with it."""
        thumbnails, manifest = self._bundle.open_thumbnails(), self._bundle.manifest
        if thumbnails is None or self._store.read_setting(SEEDED_FROM) != manifest.data_hash:
            return
        source = manifest.files[THUMBNAILS_FILE].sha256
        if self._store.read_setting(THUMBNAILS_FROM) != source:
            generation = self._bundle.open_generation()
            self._store.add_thumbnails(
                iterate_thumbnails(generation, thumbnails, self._limits.seed_block), source
            )

    def _show_changes(self, changes: Changes) -> None:
        """Show the changes of the write that this process has just made."""
        folder, newest = self._folder, self._store.sequence
        if newest == folder.seen.newest + 1:
            folder.show(folder.overlay.apply(changes), folder.seen._replace(newest=newest))
        elif newest != folder.seen.newest:  # others have written before it
            folder.catch_up()

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One write at a time, and none once the gallery is being closed."""
        with self._restore_on_failure():
            if self._closing:
                raise Closed(f"{self._folder.path} was closed: open it again to write.")
            yield

    @contextmanager
    def _restore_on_failure(self) -> Iterator[None]:
        """If anything fails within, show readers what the database holds."""
        with self._folder.writing:
            if self._unsure:
                self._folder.catch_up()
                self._unsure = False
            try:
                yield
            except (InputError, Withdrawn, AlreadyDone):
                raise
            except BaseException:
                self._unsure = True
                with suppress(Exception):
                    self._folder.catch_up()
                    self._unsure = False
                raise

    def _is_due(self) -> bool:
        if self._closing:
            return False
        view = self._folder.view
        rows = 0 if view.main is None else len(view.main)
        written = len(self._folder.overlay.written)
        return written > self._limits.buffer_rows or view.n_deleted > self._limits.deleted_fraction * rows
