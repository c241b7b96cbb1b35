"""Backups: a copy of a data folder that can be checked byte for byte and restored."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa

from api_schemas.base import Schema
from api_schemas.manifest import COLLECTION_FILE, FileEntry, FileName
from common.errors import BundleError, InputError
from common.private_files import FOLDER_MODE, close_to_others
from index.gallery.generation_folders import EMPTY, GENERATIONS
from index.store.databases.database import get_first_line
from index.store.document_store import StoreFailed
from index.store.item_store import DATABASE_FILE, ItemStore
from index.verified_files import check_files, fsync_and_hash, publish

BACKUP_FILE = "backup.json"


class BackupRecord(Schema):
    """The record of a backup: its model and its files."""

    model_hash: str
    files: dict[FileName, FileEntry]


@contextmanager
def build_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that gets the name ``out`` once it is whole; raises InputError if ``out`` exists.

    If it cannot be written nothing of it is left, and a full disk or a failing database is a StoreFailed.
    """
    if out.exists():
        raise InputError(f"{out} exists: give a new folder for the backup.")
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE)
        yield folder
        close_to_others(folder)
        publish(folder, out)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, (OSError, sqlite3.Error, sa.exc.DBAPIError)):
            raise StoreFailed(
                f"{out} could not be written: {get_first_line(error)}. Nothing of it is left."
            ) from error
        raise


def write_backup(data: Path, out: Path, store: ItemStore | None = None) -> None:
    """A consistent copy of all that a data folder keeps, while it is in use.

    The generation is copied along so that a restored folder opens at once; if a rebuild removes it
    meanwhile, or a server searches it, it is left out, for it can be built again from the items.

    Args:
        store: the folder's item store where it is on a server; the copy is SQLite.

    Raises:
        InputError: ``data`` is no data folder, or ``out`` exists.
    """
    if store is None and not (data / DATABASE_FILE).is_file():
        raise InputError(f"{data} is not a data folder: it has no {DATABASE_FILE}.")
    with build_folder(out) as folder:
        copy = folder / DATABASE_FILE
        if store is not None:
            store.copy_to(copy)
        else:
            address = data / DATABASE_FILE
            with (
                closing(sqlite3.connect(address, timeout=30)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        settings = _fold_log(copy)
        name = settings.get("generation", EMPTY)
        # a restored folder must not share a collection with this one
        if name != EMPTY and not (data / GENERATIONS / name / COLLECTION_FILE).exists():
            try:
                shutil.copytree(data / GENERATIONS / name, folder / GENERATIONS / name)
            except (FileNotFoundError, shutil.Error):
                if (data / GENERATIONS / name).is_dir():
                    raise
                shutil.rmtree(folder / GENERATIONS, ignore_errors=True)
        record = BackupRecord(model_hash=settings["model_hash"], files=fsync_and_hash(folder))
        record.save(folder / BACKUP_FILE)


def _fold_log(database: Path) -> dict[str, str]:
    """Take a write-ahead log into the file itself; returns the settings."""
    with closing(sqlite3.connect(database)) as copied:
        copied.execute("PRAGMA journal_mode=DELETE")
        return dict(copied.execute("SELECT name, value FROM settings").fetchall())


def restore_backup(backup: Path, data: Path) -> None:
    """Make a data folder from a backup, every file checked; a crash leaves none.

    Raises InputError if ``data`` is not empty, and BundleError if the backup is damaged.
    """
    if data.exists() and any(data.iterdir()):
        raise InputError(f"{data} is not empty: a backup is restored into a new data folder.")
    try:
        record = BackupRecord.load(backup / BACKUP_FILE)
    except InputError as error:
        raise BundleError(f"{backup} is not a backup: {error}") from None
    check_files(backup, record.files)
    if data.exists():
        data.rmdir()
    with build_folder(data) as folder:
        for name in record.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backup / name, folder / name)
        check_files(folder, record.files)
        fsync_and_hash(folder)
