"""A copy of a data folder that can be checked byte for byte and made into a data folder again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api_schemas.base import Schema
from api_schemas.errors import BundleError, InputError
from api_schemas.manifest import FileEntry, FileName
from index.checked import check_files, durable_entries, publish

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


def seal(folder: Path, model_hash: str) -> None:
    """Write down what a backup holds."""
    BackupRecord(model_hash=model_hash, files=durable_entries(folder)).save(folder / BACKUP_FILE)


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
