"""Folders of files with checksums: made durable, published under a name, and verified."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from api_schemas.manifest import FileEntry
from common.atomic_files import fsync_folder, hash_file, write_atomically
from common.errors import BundleError


class HashCache:
    """The hashes of files that were verified before, by path, size, times and inode; kept in a data folder.

    The time of the last change (ctime) cannot be set back, as that of the last write (mtime) can.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[int | str]] = {}
        with suppress(OSError, ValueError):
            known = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                self._known = {name: state for name, state in known.items() if isinstance(state, list)}

    def knows(self, file: Path) -> bool:
        """Whether the file has not changed since it was hashed."""
        known = self._known.get(str(file.resolve()))
        return file.exists() and known is not None and known[:-1] == _read_state(file)

    def get_sha256(self, file: Path) -> str:
        """The file's SHA-256: remembered if the file is the same, computed otherwise."""
        now = _read_state(file)
        key = str(file.resolve())
        known = self._known.get(key)
        if known is not None and known[:-1] == now:
            return str(known[-1])
        digest = hash_file(file)
        self._known[key] = [*now, digest]
        return digest

    def save(self) -> None:
        """Keep the hashes for the next start, without those of files that are gone."""
        present = {name: state for name, state in self._known.items() if Path(name).exists()}
        write_atomically(self._file, json.dumps(present, indent=1).encode(), private=True)


def _read_state(file: Path) -> list[int | str]:
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]


def check_files(
    folder: Path,
    files: Mapping[str, FileEntry],
    hashes: HashCache | None = None,
    unhashed: Collection[str] = (),
) -> None:
    """Compare files with their entries, byte for byte; those that are ``unhashed`` by their size.

    Raises BundleError naming the file that is missing, changed or leads out of the folder.
    """
    for name, entry in files.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{file} leads out of the bundle.")
        if not file.is_file():
            raise BundleError(f"{file} is missing: the bundle is incomplete.")
        size = file.stat().st_size
        if size != entry.size:
            raise BundleError(
                f"{file} has {size} bytes, the manifest says {entry.size}: the file was changed."
            )
        if name in unhashed:
            continue
        digest = hash_file(file) if hashes is None else hashes.get_sha256(file)
        if digest != entry.sha256:
            raise BundleError(
                f"{file} is not the file the manifest describes (SHA-256 differs): it was changed."
            )


def fsync_and_hash(folder: Path) -> dict[str, FileEntry]:
    """Make every file of a folder durable, and hash it."""
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            name = file.relative_to(folder).as_posix()
            files[name] = FileEntry(sha256=hash_file(file), size=file.stat().st_size)
        else:
            fsync_folder(file)
    return files


def publish(folder: Path, out: Path) -> None:
    """Rename a finished folder; what was there before is removed. A crash leaves the old or none."""
    fsync_folder(folder)
    old = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
    replaces = out.exists()
    if replaces:
        out.rename(old)
    folder.rename(out)
    fsync_folder(out.parent)
    if replaces:
        shutil.rmtree(old)
