"""API keys: stored as hashes, scoped, rotated and revoked without a restart."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import InputError
from limen.client import Client, ServiceError
from service.auth.api_keys import KeyFile, create_key, revoke_keys


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


def test_a_browser_reads_with_a_password_and_never_posts_with_one(
    start: Any, bundle: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(bundle.path, api_keys_file=file)
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{secret}".encode()).decode()}
    assert httpx.get(address + "/dashboard").headers["www-authenticate"] == "Basic"
    assert httpx.get(address + "/dashboard", headers=basic).status_code == 200
    assert httpx.get(address + "/dashboard", headers={"Authorization": "Basic %%%"}).status_code == 401
    assert httpx.post(address + "/v1/search", headers=basic, json={}).status_code == 401
