"""API keys: stored as hashes, scoped, rotated and revoked without a restart."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import InputError
from limen.client import Client, ServiceError
from service.auth import api_keys
from service.auth.api_keys import KeyFile, KeyRing, create_key, revoke_keys
from service.errors.problems import KeysUnreadable
from tests.service.processes import read_refusal


def test_keys_are_stored_hashed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secrets = [create_key(file, "reader", "read"), create_key(file, "reader", "read")]
    assert len(set(secrets)) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(secret in file.read_text() for secret in secrets)
    assert [key.name for key in KeyFile.load(file).keys] == ["reader", "reader"]
    with pytest.raises(InputError, match="no key named 'writer'"):
        revoke_keys(file, "writer")
    assert revoke_keys(file, "reader") == 2


def test_keys_guard_everything_but_health(start: Any, bundle: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(bundle.path, api_keys_file=file)
    for path in ("/v1/info", "/v1/operating-points", "/v1/reports/consistency", "/dashboard", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": secret}):
            refused = httpx.get(address + path, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["type"] == "/problems/unauthenticated"
            assert "www-authenticate" in refused.headers
        assert httpx.get(address + path, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert httpx.post(address + "/v1/search", content="junk").status_code == 401, "keys come before bodies"
    for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/static/limen.css"):
        assert httpx.get(address + path).status_code == 200
    with Client(address, key=secret) as client:
        assert client.search([{"id": "item-0"}]).results


def test_keys_are_rotated_without_a_restart(start: Any, bundle: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = create_key(file, "old", "read")
    address = start(bundle.path, api_keys_file=file)
    new = create_key(file, "new", "read")
    with Client(address, key=old) as retired, Client(address, key=new) as current:
        assert retired.info() == current.info()
        revoke_keys(file, "old")
        with pytest.raises(ServiceError, match="key"):
            retired.info()
        assert current.info().dim == 16


def test_keys_created_and_revoked_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    create_key(file, "old", "read")

    def create_five(writer: int) -> None:
        for number in range(5):
            create_key(file, f"{writer}-{number}", "read")

    code = (
        "from service.auth.api_keys import *\nimport sys\n"
        "for n in range(5): create_key(Path(sys.argv[1]), f'p{n}', 'read')"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)]) as other, ThreadPoolExecutor(4) as pool:
        created = [pool.submit(create_five, writer) for writer in range(3)]
        revoked = pool.submit(revoke_keys, file, "old")
        for future in created:
            future.result(60)
        assert revoked.result(60) == 1
        assert other.wait(60) == 0
    names = sorted(key.name for key in KeyFile.load(file).keys)
    assert names == sorted([*(f"{w}-{n}" for w in range(3) for n in range(5)), *(f"p{n}" for n in range(5))])
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"name": "a"}]}', "\0" * 40])
def test_a_broken_file_is_named_and_no_key_is_accepted(
    start: Any, bundle: Any, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    good = file.read_text()
    address = start(bundle.path, api_keys_file=file)
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{address}/v1/info", headers=headers).status_code == 200
    file.write_text(content)
    refused = httpx.get(f"{address}/v1/info", headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/not-ready")
    assert "keys.json" in refused.json()["detail"]
    assert str(tmp_path) not in refused.json()["detail"]
    assert httpx.get(f"{address}/livez").status_code == 200
    if content:
        for change in (lambda: create_key(file, "b", "read"), lambda: revoke_keys(file, "reader")):
            with pytest.raises(InputError, match=r"keys\.json is not a valid KeyFile"):
                change()
        assert file.read_text() == content, "nothing is lost"
        line = read_refusal(str(bundle.path), "--port", "0", LIMEN_API_KEYS_FILE=str(file))
        assert "keys.json is not a valid KeyFile" in line
    file.write_text(good)
    assert httpx.get(f"{address}/v1/info", headers=headers).status_code == 200


def test_a_file_that_was_replaced_outside_accepts_no_key(tmp_path: Path) -> None:
    """As a container sees it whose ``keys.json`` alone is mounted: the old inode, which has no name."""
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    with file.open("rb") as mounted:
        ring = KeyRing(Path(f"/proc/self/fd/{mounted.fileno()}"))
        assert ring.find(secret) is not None
        revoke_keys(file, "reader")
        with pytest.raises(KeysUnreadable, match="mount the folder"):
            ring.find(secret)


def test_a_new_file_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secrets = [create_key(tmp_path / name, "reader", "read") for name in ("keys.json", "other.json")]
    document = json.loads((tmp_path / "other.json").read_text())
    document["keys"][0]["created_at"] = json.loads(file.read_text())["keys"][0]["created_at"]
    ring = KeyRing(file)
    state = file.stat()
    (tmp_path / "other.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    os.utime(tmp_path / "other.json", ns=(state.st_atime_ns, state.st_mtime_ns))
    (tmp_path / "other.json").replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert [ring.find(secret) is not None for secret in secrets] == [False, True]
    file.unlink()
    assert ring.find(secrets[1]) is None


def test_a_file_that_is_mounted_by_itself_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    create_key(folder / "keys.json", "reader", "read")
    monkeypatch.setattr(logging.getLogger("limen.service"), "handlers", [caplog.handler])
    monkeypatch.setattr(api_keys, "MOUNTS", tmp_path / "mountinfo")
    line = "36 35 98:0 /keys.json {} rw,noatime master:1 - ext4 /dev/root rw\n"
    for mounted, warned in ((folder, False), (folder / "keys.json", True)):
        (tmp_path / "mountinfo").write_text(line.format(str(mounted).replace(" ", r"\040")))
        KeyRing(folder / "keys.json")
        assert ("Mount the folder" in caplog.text) == warned


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\tb", "\u200b", "x" * 201])
def test_a_name_that_is_no_line_of_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="A key's name has 1 to 200 visible characters"):
        create_key(tmp_path / "keys.json", name, "read")
    assert not (tmp_path / "keys.json").exists()
