"""Files and folders for their owner alone, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.atomic_files import write_atomically
from common.private_files import close_to_others, make_private_folder, open_private


def get_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_made_is_private(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    assert get_mode(tmp_path / "a" / "b") == 0o700
    with open_private(tmp_path / "file", "wb") as file:
        assert get_mode(tmp_path / "file") == 0o600
        file.write(b"x")
    write_atomically(tmp_path / "key", b"x", private=True)
    assert get_mode(tmp_path / "key") == 0o600


@pytest.mark.parametrize("filled", [False, True])
def test_a_folder_that_others_may_need_is_left_as_it_is(tmp_path: Path, filled: bool) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    if filled:
        (folder / "theirs").write_text("x")
    make_private_folder(folder)
    assert get_mode(folder) == (0o755 if filled else 0o700)


def test_closing_follows_no_links_and_keeps_what_the_owner_may(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.write_text("x")
    outside.chmod(0o644)
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("x")
    (folder / "inner" / "read-only").write_text("x")
    (folder / "inner" / "read-only").chmod(0o444)
    (folder / "link").symlink_to(outside)
    close_to_others(folder)
    close_to_others(tmp_path / "nothing")
    assert get_mode(outside) == 0o644
    assert [get_mode(folder / name) for name in ("", "inner", "inner/file", "inner/read-only")] == [
        0o700,
        0o700,
        0o600,
        0o400,
    ]
