"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.atomic_files import hash_file, remove_temporaries, write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.atomic_files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert hash_file(file) == hashlib.sha256(b"new").hexdigest()


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.json", ".a.json.tmp", ".hidden")]
    for file in [*kept, tmp_path / ".a.json.0123abcd.tmp"]:
        file.write_bytes(b"x")
    remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
