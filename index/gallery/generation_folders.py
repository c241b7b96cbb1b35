"""The generations of a data folder: folders that are whole or absent, of which the item store names one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from api_schemas.base import Schema
from api_schemas.manifest import FileEntry, FileName, IndexDescription
from common.errors import BundleError, InputError
from common.private_files import FOLDER_MODE, close_to_others, make_private_folder
from index.search.generation import Generation
from index.store.document_store import StoreFailed
from index.verified_files import HashCache, check_files, fsync_and_hash, publish

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

    def __init__(self, data: Path, dim: int) -> None:
        self._folder = data / GENERATIONS
        self._dim = dim

    def write(self, sequence: int, n: int, build: Callable[[Path], Generation]) -> tuple[str, Generation]:
        """Build and keep a generation of ``n`` items; returns its name and itself, opened from its files.

        ``build`` makes it, with a folder in which it may already write its vectors. Raises StoreFailed if it
        could not be written; nothing of it is left.
        """
        name = f"{sequence:012d}-{n}-{secrets.token_hex(3)}"
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
            return name, Generation.open(final, record.index, self._dim)
        except BaseException as error:  # above all a full disk, which leftovers would keep full
            for made in (folder, final):
                shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, (OSError, RuntimeError)):  # FAISS's errors are RuntimeErrors
                raise StoreFailed(
                    f"{final} could not be written: {str(error).strip()}. Items and answers are as they "
                    "were; build the index again once there is room."
                ) from error
            raise

    def open(self, name: str, hashes: HashCache | None = None) -> Generation:
        """Open a generation, every file checked; raises BundleError if it is not whole."""
        folder = self._folder / name
        try:
            record = GenerationRecord.load(folder / GENERATION_FILE)
            check_files(folder, record.files, hashes)
            return Generation.open(folder, record.index, self._dim)
        except (InputError, OSError) as error:
            raise BundleError(f"{folder} is not a whole generation: {error}") from None

    def keep_only(self, name: str | None) -> None:
        """Remove the others: leftovers of a crash, and the one before."""
        if self._folder.is_dir():
            for entry in self._folder.iterdir():
                if entry.name != name:
                    shutil.rmtree(entry, ignore_errors=True)
