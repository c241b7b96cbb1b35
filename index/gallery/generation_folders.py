"""The generations of a data folder: folders that are whole or absent, of which the item store names one."""

from __future__ import annotations

import logging
import secrets
import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from api_schemas.base import Schema
from api_schemas.build_config import IndexConfig
from api_schemas.manifest import COLLECTION_FILE, FileEntry, FileName, IndexDescription
from common.errors import BundleError, InputError, LimenError
from common.private_files import FOLDER_MODE, close_to_others, make_private_folder
from common.progress import Track, silent
from index.engines.engine import Engine
from index.engines.registry import discard_engines
from index.search.generation import Generation
from index.store.document_store import StoreFailed
from index.verified_files import HashCache, check_files, fsync_and_hash, publish

LOGGER = logging.getLogger("limen.index")
GENERATIONS = "generations"
GENERATION_FILE = "generation.json"
EMPTY = "empty"  # what the store names when there are no items: a generation without files


class GenerationRecord(Schema):
    """The record of a generation's folder: its files, and the sequence number it holds everything up to."""

    sequence: int
    dim: int
    index: IndexDescription
    files: dict[FileName, FileEntry]


class Generations:
    """Names are never used twice: a generation opened by its name is that one or absent."""

    def __init__(self, data: Path, dim: int, model_hash: str) -> None:
        self._folder = data / GENERATIONS
        self._dim = dim
        self._model_hash = model_hash
        self._remote: dict[str, weakref.ref[Engine]] = {}  # engines on servers, by generation

    def write(
        self, sequence: int, n: int, build: Callable[[Path], Generation], track: Track = silent
    ) -> tuple[str, Generation]:
        """Build and keep a generation of ``n`` items; returns its name and itself, opened from its files.

        ``build`` makes it, with a folder in which it may already write its vectors. Raises StoreFailed if it
        could not be written; nothing of it is left.
        """
        name = f"{_write_sequence(sequence)}{n}-{secrets.token_hex(3)}"
        final, folder = self._folder / name, self._folder / f".{name}.tmp"
        try:
            make_private_folder(self._folder)
            folder.mkdir(mode=FOLDER_MODE)
            generation = build(folder)
            generation.save(folder)
            record = GenerationRecord(
                sequence=sequence, dim=self._dim, index=generation.description, files=fsync_and_hash(folder)
            )
            record.save(folder / GENERATION_FILE)
            close_to_others(folder)
            publish(folder, final)
            return name, self._open(name, record, track)
        except BaseException as error:  # above all a full disk, which leftovers would keep full
            for made in (folder, final):
                self._remove(made)
            if isinstance(error, (OSError, RuntimeError)):  # FAISS's errors are RuntimeErrors
                raise StoreFailed(
                    f"{final} could not be written: {str(error).strip()}. Items and answers are as they "
                    "were; build the index again once there is room."
                ) from error
            raise

    def open(self, name: str, hashes: HashCache | None = None, track: Track = silent) -> Generation:
        """Open a generation, every file checked; raises BundleError if it is not whole."""
        folder = self._folder / name
        try:
            record = GenerationRecord.load(folder / GENERATION_FILE)
            check_files(folder, record.files, hashes)
            return self._open(name, record, track)
        except (InputError, OSError) as error:
            raise BundleError(f"{folder} is not a whole generation: {error}") from None

    def find_unfinished(self, sequence: int, config: IndexConfig, besides: str | None) -> str | None:
        """A generation of these items that was being loaded onto a server when that was broken off.

        ``besides`` is searched already.
        """
        for folder in self._folder.glob(f"{_write_sequence(sequence)}*/{COLLECTION_FILE}"):
            with suppress(LimenError):
                index = GenerationRecord.load(folder.parent / GENERATION_FILE).index
                is_same = all(
                    index.parameters[name] == getattr(config, name) for name in ("m", "ef_construction")
                )
                if index.kind == config.kind and is_same and folder.parent.name != besides:
                    return folder.parent.name
        return None

    def keep_only(self, name: str | None, resumable: int | None = None) -> None:
        """Remove the others: leftovers of a crash, and the one before.

        Loads onto a server of the items of the sequence number ``resumable`` are left to be continued.
        """
        if not self._folder.is_dir():
            return
        for entry in self._folder.iterdir():
            is_load = resumable is not None and entry.name.startswith(_write_sequence(resumable))
            if entry.name != name and not (is_load and (entry / COLLECTION_FILE).exists()):
                self._remove(entry)

    def _open(self, name: str, record: GenerationRecord, track: Track) -> Generation:
        generation = Generation.open(self._folder / name, record.index, self._dim, self._model_hash, track)
        if generation.engine.is_remote:
            self._remote[name] = weakref.ref(generation.engine)
        return generation

    def _remove(self, folder: Path) -> None:
        """Remove a generation: its files at once, what is on a server once no search uses it any more."""
        engine = self._remote.pop(folder.name, lambda: None)()
        if engine is None:
            self._discard(folder)
        else:
            # a server takes its time, and whoever held it last may be answering a request
            discard = Thread(target=self._discard, args=(folder,), daemon=True)
            weakref.finalize(engine, discard.start).atexit = False

    def _discard(self, folder: Path) -> None:
        try:
            discard_engines(folder, self._model_hash, self._dim)
        except LimenError as error:  # the folder says what is left there, and is removed with it later
            LOGGER.warning("%s is not removed yet: %s", folder, error)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _write_sequence(sequence: int) -> str:
    """What the names of the generations of these items begin with."""
    return f"{sequence:012d}-"
