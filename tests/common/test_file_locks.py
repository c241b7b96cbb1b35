"""Locks hold whatever is removed or replaced, and end with their holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from common.file_locks import FileLock, FolderLock, InUse


def test_a_folder_is_locked_whatever_is_removed_from_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "writer.lock"):
        for removed in (False, True, True):
            if removed:
                (tmp_path / "writer.lock").unlink(missing_ok=True)
            with pytest.raises(InUse, match=str(tmp_path)):
                FolderLock(tmp_path, "writer.lock")
        code = f"from common.file_locks import *; FolderLock(Path({str(tmp_path)!r}), 'writer.lock')"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "InUse" in other.stderr
    for _ in range(2):
        lock = FolderLock(tmp_path, "writer.lock")
        lock.close()
        lock.close()


def test_an_earlier_version_that_locks_the_file_alone_is_kept_out_and_keeps_out(tmp_path: Path) -> None:
    with FileLock(tmp_path / "writer.lock", wait=False), pytest.raises(InUse):
        FolderLock(tmp_path, "writer.lock")
    with FolderLock(tmp_path, "writer.lock"), pytest.raises(InUse):
        FileLock(tmp_path / "writer.lock", wait=False)


def test_a_file_that_was_replaced_while_it_was_waited_for_is_let_go(tmp_path: Path) -> None:
    file, new = tmp_path / "keys.json", tmp_path / "new"
    first = FileLock(file, wait=True)
    held = Event()

    def wait_for_it() -> None:
        with FileLock(file, wait=True) as lock:
            held.set()
            assert lock

    waiting = Thread(target=wait_for_it)
    waiting.start()
    new.write_text("new")
    new.replace(file)
    second = FileLock(file, wait=True)  # of the new file; the first is of one that has no name any more
    first.close()
    assert not held.wait(0.2)
    second.close()
    waiting.join(20)
    assert held.is_set()
    assert file.read_text() == "new"
