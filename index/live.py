"""A gallery that changes: writes go to the item store and are found at once, rebuilds happen behind."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock, RLock, Thread
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from api_schemas.base import Schema
from api_schemas.config import IndexConfig
from api_schemas.errors import BundleError, InputError, LimenError
from api_schemas.manifest import FileEntry, FileName, IndexDescription
from decision.embeddings import EmbeddingSet
from decision.progress import Track, silent
from index.backup import GENERATIONS, backup
from index.bundle import Bundle, read_bundle
from index.checked import Checked, check_files, durable_entries, publish
from index.deciding import item_densities
from index.filters import Widened, matching_rows
from index.gallery import Gallery
from index.generation import VECTORS_FILE, Generation
from index.items import metadata_columns
from index.store import ItemStore, StoredItem
from index.vectors import query_rows
from index.view import View

LOCK_FILE = "writer.lock"
CHECKED_FILE = "checked.json"
GENERATION_FILE = "generation.json"


class StoreInUse(LimenError):
    """A second writer asked for a data folder."""


class Unwritable(LimenError):
    """The gallery takes no writes, because it was closed."""


@dataclass(frozen=True)
class Limits:
    """When a new generation is built: so many rows written since, or such a share of rows dead."""

    buffer_rows: int = 4_096
    dead_share: float = 0.2
    seed_block: int = 8_192


class GenerationRecord(Schema):
    """What a generation's folder holds and up to which sequence number."""

    sequence: int
    dim: int
    index: IndexDescription
    files: dict[FileName, FileEntry]


class LiveGallery(Gallery):
    """One writer, many readers; reads see every write that has returned.

    A write returns once it is on disk. The data folder belongs to one bundle's model and one process.
    """

    def __init__(self, bundle: Bundle, folder: Path, lock: IO[bytes], limits: Limits) -> None:
        self._folder = folder
        self._lock_file = lock
        self._limits = limits
        self._writing = RLock()
        self._rebuilding = Lock()
        self._worker: Thread | None = None
        self._closed = False
        self.rebuild_error: str | None = None
        self._store = ItemStore(folder)
        super().__init__(bundle, View(None))
        self._points = list(bundle.points.values())
        self._scorers = [bundle.scorer(point) for point in self._points]
        self._main: Generation | None = None
        self._alive_rows: NDArray[np.bool_] = np.ones(0, dtype=bool)
        self._buffer: dict[str, StoredItem] = {}

    @classmethod
    def open(  # type: ignore[override]
        cls, path: Path | str, data: Path | str, limits: Limits = Limits(), track: Track = silent
    ) -> Self:
        """Open a bundle with a data folder; the first time its items are copied into the folder's store.

        Raises:
            StoreInUse: another process writes there.
            BundleError: damaged files, or a folder that belongs to another model.
        """
        folder = Path(data)
        folder.mkdir(parents=True, exist_ok=True)
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
            gallery = cls(read_bundle(Path(path), checked), folder, lock, limits)
            gallery._load(checked, track)
            checked.save()
        except BaseException:
            lock.close()
            raise
        return gallery

    def close(self) -> None:
        """Wait for a rebuild, let go of the folder."""
        with self._writing:
            self._closed = True
        self.wait()
        self._store.close()
        self._lock_file.close()
        self._main = None
        self._view = View(None)

    def wait(self) -> None:
        """Return once no rebuild is under way."""
        worker = self._worker
        if worker is not None:
            worker.join()

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        return {**super().stats(), "sequence": self._store.sequence, "generation": self._name or "bundle"}

    def upsert(self, items: Sequence[StoredItem]) -> int:
        """Write items, replacing those with the same ids; returns how many are new.

        On return they are on disk and found by the next search.

        Raises:
            InputError: an item that cannot be used; nothing was written.
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
        with self._writing:
            self._check_open()
            new = self._store.upsert(items, self.manifest.model_hash)
            self._buffer |= {item.id: item for item in items}
            self._bury([item.id for item in items])
            self._show()
        self._rebuild_if_due()
        return new

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id; returns how many were there. On return they are gone from disk and searches."""
        return len(self._delete(ids))

    def delete_where(self, condition: Mapping[str, Any]) -> list[str]:
        """Delete the items a filter holds for; returns their ids."""
        if not condition:
            raise InputError("filter: an empty filter holds for every item; name what to delete.")
        with self._writing:
            return self._delete(self._matching(condition))

    def _delete(self, ids: Sequence[str]) -> list[str]:
        with self._writing:
            self._check_open()
            gone = self._store.delete(ids)
            for one in gone:
                self._buffer.pop(one, None)
            self._bury(gone)
            self._show()
        self._rebuild_if_due()
        return gone

    def _matching(self, condition: Mapping[str, Any]) -> list[str]:
        view = self._view
        ids: list[str] = []
        for generation in (view.main, view.buffer):
            if generation is None:
                continue
            rows = matching_rows(condition, Widened(generation.items, view.fields))
            if generation is view.main and view.alive is not None:
                rows = rows[view.alive.rows[rows]]
            ids += generation.items.ids.take(rows)
        return ids

    def get(self, item_id: str) -> StoredItem | None:
        """An item as it was written, or None."""
        return self._store.get(item_id)

    def page(self, after: str | None = None, limit: int = 100) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        return self._store.page(after, limit)

    def rebuild(self, track: Track = silent) -> None:
        """Build a new generation from the item store and swap it in; searches and writes go on meanwhile."""
        with self._rebuilding:
            with self._writing:
                sequence = self._store.sequence
                n = self._store.count()
                blocks = self._store.read_all()
                first = next(blocks, None)
            if first is None:
                return
            name = f"{sequence:012d}-{n}"
            folder = self._folder / GENERATIONS / f".{name}.tmp"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            items = collected(chain([first], blocks), n, self.dim, folder / VECTORS_FILE)
            densities = item_densities(self._points, self._scorers, items.vectors)
            generation = Generation.build(items, _config(self.manifest.index), densities, track)
            generation.save(folder)
            record = GenerationRecord(
                sequence=sequence,
                dim=self.dim,
                index=generation.description,
                files=durable_entries(folder),
            )
            record.save(folder / GENERATION_FILE)
            final = self._folder / GENERATIONS / name
            publish(folder, final)
            opened = Generation.open(final, record.index, self.dim)
            with self._writing:
                self._store.switch(name, sequence)
                self._adopt(opened, name, sequence)
            self._sweep()

    def backup(self, out: Path) -> None:
        """A consistent copy of items, vectors and operating points, taken while reads and writes go on.

        Raises:
            InputError: ``out`` exists.
        """
        with self._rebuilding:
            backup(self._folder, out)

    def _load(self, checked: Checked, track: Track) -> None:
        owner = self._store.setting("model_hash")
        if owner is None:
            self._store.seed(self._bundled(track), self.manifest.model_hash)
            self._store.set_points({point.id: point.to_json() for point in self._points})
            self._store.set_settings({"seeded_from": self.manifest.data_hash})
        elif owner != self.manifest.model_hash:
            raise BundleError(
                f"{self._folder} holds items of model {owner[:12]}, the bundle is of model "
                f"{self.manifest.model_hash[:12]}: use another data folder for this model."
            )
        name = self._store.setting("generation")
        self._name: str | None = name
        found: Generation | None = None
        if name is None and self._store.setting("seeded_from") == self.manifest.data_hash:
            found = self._bundle.generation()
        elif name is not None:
            found = self._opened(name, checked)
        if found is None:
            self._name = None
            self.rebuild(track)
            if self._main is None:
                self._adopt(None, None, 0)
        else:
            self._adopt(found, name, int(self._store.setting("sequence") or 0))
        self._sweep()

    def _opened(self, name: str, checked: Checked) -> Generation | None:
        """A generation of the folder, or None if it is not whole: it can be built again."""
        folder = self._folder / GENERATIONS / name
        try:
            record = GenerationRecord.load(folder / GENERATION_FILE)
            check_files(folder, record.files, checked)
            return Generation.open(folder, record.index, self.dim)
        except (BundleError, InputError):
            return None

    def _bundled(self, track: Track) -> Iterator[list[StoredItem]]:
        generation = self._bundle.generation()
        starts = range(0, len(generation), self._limits.seed_block)
        for start in track(starts, "items", len(starts)):
            rows = np.arange(start, min(start + self._limits.seed_block, len(generation)))
            vectors = np.array(generation.vectors[rows])
            ids = generation.items.ids.take(rows)
            metadata = generation.items.metadata_block(start, len(rows))
            yield [
                StoredItem(
                    ids[place],
                    generation.items.classes[generation.items.label_codes[row]],
                    vectors[place],
                    metadata[place],
                )
                for place, row in enumerate(rows.tolist())
            ]

    def _adopt(self, main: Generation | None, name: str | None, sequence: int) -> None:
        """Make a generation the current one, with what was written after its sequence number beside it.

        Readers keep the view before until ``_show`` puts a whole new one in its place.
        """
        changes = self._store.changes_after(sequence)
        self._name = name
        self._main = main
        self._buffer = {item.id: item for item in changes.written}
        self._alive_rows = np.ones(0 if main is None else len(main), dtype=bool)
        self._bury(changes.touched)
        self._show()

    def _bury(self, ids: Sequence[str]) -> None:
        main = self._main
        if main is None:
            return
        rows = [row for row in (main.items.row_of(one) for one in ids) if row is not None]
        if rows:
            self._alive_rows = self._alive_rows.copy()
            self._alive_rows[rows] = False

    def _show(self) -> None:
        """Let readers see the store's present state."""
        main = self._main
        alive = None
        if main is not None and not self._alive_rows.all():
            alive = main.alive(self._alive_rows)
        buffer = None
        if self._buffer:
            items = collected(iter([list(self._buffer.values())]), len(self._buffer), self.dim)
            buffer = Generation.buffer(items, item_densities(self._points, self._scorers, items.vectors))
        self._view = View(main, alive, buffer, dict(self._store.fields))

    def _rebuild_if_due(self) -> None:
        view = self._view
        rows = 0 if view.main is None else len(view.main)
        due = len(self._buffer) > self._limits.buffer_rows or view.dead > self._limits.dead_share * rows
        with self._writing:
            busy = self._worker is not None and self._worker.is_alive()
            if not due or busy or self._closed or not len(view):
                return
            self._worker = Thread(target=self._rebuild_behind, name="limen-rebuild", daemon=True)
            self._worker.start()

    def _rebuild_behind(self) -> None:
        try:
            self.rebuild()
            self.rebuild_error = None
        except Exception as error:  # searches go on with the old generation; monitoring shows the reason
            self.rebuild_error = f"{type(error).__name__}: {error}"

    def _sweep(self) -> None:
        """Remove generations that are not the current one: leftovers of a crash, and the one before."""
        folder = self._folder / GENERATIONS
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.name != self._name:
                    shutil.rmtree(entry, ignore_errors=True)

    def _check_open(self) -> None:
        if self._closed:
            raise Unwritable(f"{self._folder} was closed; open it again to write.")


def collected(blocks: Iterator[list[StoredItem]], n: int, dim: int, file: Path | None = None) -> EmbeddingSet:
    """Items as one set; with a file its vectors are written there and mapped, not held in memory."""
    vectors: NDArray[np.float32] = (
        np.empty((n, dim), dtype=np.float32)
        if file is None
        else np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, dim))
    )
    ids: list[str] = []
    labels: list[str] = []
    metadata: list[Mapping[str, Any]] = []
    for block in blocks:
        vectors[len(ids) : len(ids) + len(block)] = [item.vector for item in block]
        ids += [item.id for item in block]
        labels += [item.label for item in block]
        metadata += [item.metadata for item in block]
    if isinstance(vectors, np.memmap):
        vectors.flush()
    columns = {name: np.array(values, dtype=object) for name, values in metadata_columns(metadata).items()}
    return EmbeddingSet(vectors, np.array(labels, dtype=np.str_), np.array(ids, dtype=np.str_), columns)


def _config(description: IndexDescription) -> IndexConfig:
    """The configuration a generation is built with: the bundle's, chosen anew if it was left open."""
    kind = "auto" if description.reason is not None else description.kind
    return IndexConfig.model_validate({"kind": kind, **description.parameters})
