"""Logs and the audit log hold neither keys nor vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from limen.client import Client, ServiceError
from service.auth.api_keys import create_key
from service.telemetry import logs
from tests.service.bundles import serve


def test_logs_hold_neither_keys_nor_vectors(
    bundle: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "writer", "write")
    logs.configure("debug")
    try:
        with serve(bundle.path, data=tmp_path / "data", api_keys_file=file) as at:
            vector = [0.123456789] * 16
            with Client(at, key=secret, retries=0) as client:
                client.upsert([{"id": "kept", "label": "a", "vector": vector}])
                client.search([{"vector": vector}])
                with pytest.raises(ServiceError):
                    client.search([{"vector": vector[:3]}])
            httpx.get(f"{at}/v1/info", headers={"Authorization": "Bearer not-a-key-of-ours"})
    finally:
        logs.configure("warning")
    lines = capsys.readouterr().err
    written = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    request_lines = [line for line in written if line["message"] == "request"]
    assert {line["path"] for line in request_lines} >= {"/v1/items", "/v1/search", "/v1/info"}
    assert all(line["request_id"] for line in request_lines)
    kept = lines + (tmp_path / "data" / "audit.jsonl").read_text()
    assert '"kept"' in kept
    for never in (secret, "not-a-key-of-ours", "0.1234", "0.25,"):
        assert never not in kept
