"""The data folder of a service: closed to others, and used by one service at a time."""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError
from common.file_locks import FolderLock, InUse
from common.private_files import close_to_others, make_private_folder
from service.models.loaded_model import MODELS_FOLDER

LOCK_FILE = "service.lock"
OWN_FILES = (LOCK_FILE, "audit.jsonl", "service.json", "decision.key")


def make_data_folder(data: Path) -> None:
    """Make the folder if need be, and close what it keeps to others; raises ConfigError if it cannot."""
    try:
        make_private_folder(data)
        models = data / MODELS_FOLDER
        models.mkdir(mode=0o700, exist_ok=True)
        # also those that an earlier version left open
        for folder in (models, *models.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(folder.stat().st_mode & 0o700)
        for name in OWN_FILES:
            close_to_others(data / name)
        if {entry.name for entry in data.iterdir()} <= {MODELS_FOLDER, *OWN_FILES}:
            data.chmod(data.stat().st_mode & 0o700)
    except OSError as error:
        raise ConfigError(f"{data} cannot be the data folder: {error.strerror}. Choose another.") from None


def lock_data_folder(data: Path) -> FolderLock:
    """The lock of the folder: two services, whatever their models, may not share one.

    Raises ConfigError if another service uses it.
    """
    try:
        return FolderLock(data, LOCK_FILE)
    except InUse:
        raise ConfigError(
            f"{data} is being written by another service: a data folder has one writer. Stop the other, or "
            "give this one a folder of its own with --data."
        ) from None
