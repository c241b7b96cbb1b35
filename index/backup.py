"""A copy of a data folder that can be checked byte for byte and made into a data folder again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from api_schemas.base import Schema
from api_schemas.errors import BundleError, InputError
from api_schemas.manifest import FileEntry, FileName
from index.checked import check_files, durable_entries, publish
from index.generations import GENERATIONS
from index.store import DATABASE_FILE

BACKUP_FILE = "backup.json"


class BackupRecord(Schema):
    """What a backup holds, and of which model."""

    model_hash: str
    files: dict[FileName, FileEntry]


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder to fill that gets the name ``out`` once it is whole; raises InputError if that exists."""
    if out.exists():
        raise InputError(f"{out} exists: give a new folder for the backup.")
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        publish(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def backup(data: Path, out: Path) -> None:
    """A consistent copy of a data folder's items, vectors and operating points, while it is in use.

    The generation is copied along so that a restored folder opens at once; if a rebuild removes it
    meanwhile it is left out, for it can be built again from the items.

    Raises:
        InputError: ``data`` is no data folder, or ``out`` exists.
    """
    if not (data / DATABASE_FILE).is_file():
        raise InputError(f"{data} is not a data folder: it has no {DATABASE_FILE}.")
    with unfinished(out) as folder:
        settings = _copy_database(data / DATABASE_FILE, folder / DATABASE_FILE)
        name = settings.get("generation")
        if name is not None:
            try:
                shutil.copytree(data / GENERATIONS / name, folder / GENERATIONS / name)
            except (FileNotFoundError, shutil.Error):
                shutil.rmtree(folder / GENERATIONS, ignore_errors=True)
        record = BackupRecord(model_hash=settings["model_hash"], files=durable_entries(folder))
        record.save(folder / BACKUP_FILE)


def _copy_database(source: Path, target: Path) -> dict[str, str]:
    with closing(sqlite3.connect(source, timeout=30)) as reads, closing(sqlite3.connect(target)) as writes:
        reads.backup(writes)
        writes.execute("PRAGMA journal_mode=DELETE")
        return dict(writes.execute("SELECT name, value FROM settings").fetchall())


def restore(backup: Path, data: Path) -> None:
    """Make a data folder from a backup, every file checked; a crash leaves none.

    Raises:
        InputError: ``data`` exists and is not empty.
        BundleError: the backup is damaged.
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
    with unfinished(data) as folder:
        for name in record.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backup / name, folder / name)
        check_files(folder, record.files)
        durable_entries(folder)
