"""Keys, decision ids and settings that would be unsafe."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import ConfigError, InputError
from limen.client import Client, ServiceError
from service.auth.api_keys import KeyFile, create_key, revoke_keys
from service.auth.decision_tokens import DecisionSigner, SignedDecision
from service.errors.problems import ServiceProblem
from service.settings import load_settings


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


def test_keys_guard_everything_but_health(start: Any, made: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(made.path, api_keys_file=file)
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


def test_keys_are_rotated_without_a_restart(start: Any, made: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = create_key(file, "old", "read")
    address = start(made.path, api_keys_file=file)
    new = create_key(file, "new", "read")
    with Client(address, key=old) as retired, Client(address, key=new) as current:
        assert retired.info() == current.info()
        revoke_keys(file, "old")
        with pytest.raises(ServiceError, match="key"):
            retired.info()
        assert current.info().dim == 16


def test_a_browser_reads_with_a_password_and_never_posts_with_one(
    start: Any, made: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(made.path, api_keys_file=file)
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{secret}".encode()).decode()}
    assert httpx.get(address + "/dashboard").headers["www-authenticate"] == "Basic"
    assert httpx.get(address + "/dashboard", headers=basic).status_code == 200
    assert httpx.get(address + "/dashboard", headers={"Authorization": "Basic %%%"}).status_code == 401
    assert httpx.post(address + "/v1/search", headers=basic, json={}).status_code == 401


def test_other_machines_need_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limen keys create"):
        load_settings(bundle=tmp_path, host="0.0.0.0")
    create_key(tmp_path / "keys.json", "a", "read")
    assert load_settings(bundle=tmp_path, host="0.0.0.0", api_keys_file=tmp_path / "keys.json")
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        assert load_settings(bundle=tmp_path, host=host)


def test_settings_name_the_offending_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_k"):
        load_settings(bundle=tmp_path, max_k=0)
    with pytest.raises(ConfigError, match=r"LIMEN_LOG_LEVEL.*warning"):
        load_settings(bundle=tmp_path, log_level="loud")
    with pytest.raises(ConfigError, match="read-only"):
        load_settings(bundle=tmp_path, workers=2, data=tmp_path)


DECISION = SignedDecision("match", 1.5, "ab" * 32, "op-1", "unknown", 0.25, None, "item-7")


def test_a_decision_id_carries_the_decision() -> None:
    signer = DecisionSigner.open(None)
    token = signer.sign(DECISION)
    assert signer.read(token) == DECISION
    assert len(token) < 260


def test_a_decision_id_cannot_be_made_up(tmp_path: Path) -> None:
    signer = DecisionSigner.open(tmp_path)
    token = signer.sign(DECISION)
    changed = [token[:-6] + "AAAAAA", "A" + token[1:], token[:20], "", "ü", "=" * 9, token + "AAAA"]
    for bad in changed:
        with pytest.raises(ServiceProblem, match="not signed"):
            signer.read(bad)
    with pytest.raises(ServiceProblem, match="not signed"):
        DecisionSigner.open(None).read(token)
    assert DecisionSigner.open(tmp_path).read(token) == DECISION, "the data folder keeps the key"
    assert (tmp_path / "decision.key").stat().st_mode & 0o777 == 0o600
