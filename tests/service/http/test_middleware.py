"""Security headers and request ids on every answer, nothing for other origins, HEAD as GET."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.auth.api_keys import create_key
from tests.service.bad_bodies import check_problem


def test_other_origins_are_told_nothing(start: Any, bundle: Any, tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.json", "shop", "read")
    address = start(bundle.path, api_keys_file=tmp_path / "keys.json")
    headers = {
        "Authorization": f"Bearer {key}",
        "Host": "limen.example",
        "Origin": "https://elsewhere.example",
        "Access-Control-Request-Method": "POST",
    }
    for answer in (
        httpx.options(f"{address}/v1/search", headers=headers),
        httpx.get(f"{address}/v1/info", headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert httpx.options(f"{address}/v1/search", headers=headers).status_code == 405
    assert httpx.get(f"{address}/v1/info", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (None, None, 200),
        ("localhost", None, 200),
        ("localhost:9000", "http://localhost:9000", 200),
        ("LocalHost:9000", "https://localhost:9000", 200),
        ("127.0.0.9:1", None, 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("faces.localhost:8000", "http://faces.localhost:8000", 200),
        ("rebound.example", None, 403),
        ("localhost.rebound.example:8000", None, 403),
        ("127.0.0.1.rebound.example", None, 403),
        ("0.0.0.0:8000", None, 403),
        ("rebound.example", "http://rebound.example", 403),
        ("localhost", "https://elsewhere.example", 403),
        ("localhost:9000", "http://localhost:9001", 403),
        ("localhost", "null", 403),
    ],
)
def test_without_keys_only_this_machine_is_answered(
    address: str, host: str | None, origin: str | None, status: int
) -> None:
    headers = {name: value for name, value in (("Host", host), ("Origin", origin)) if value is not None}
    for path in ("/v1/info", "/livez", "/dashboard", "/nowhere"):
        answer = httpx.get(address + path, headers=headers)
        if status == 403:
            assert check_problem(answer, 403).type == "/problems/foreign-origin"
        else:
            assert answer.status_code == (404 if path == "/nowhere" else 200), path


def test_every_answer_is_dressed(address: str) -> None:
    for path in ("/livez", "/v1/info", "/dashboard", "/nothing", "/static/limen.css"):
        response = httpx.get(address + path, headers={"X-Request-Id": "given-7"})
        assert response.headers["x-request-id"] == "given-7"
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_head_is_answered_as_get_without_the_body(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        for path in ("/livez", "/readyz", "/metrics", "/dashboard", "/docs", "/v1/info", "/static/limen.css"):
            head, got = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-type"] == got.headers["content-type"]
            if path not in ("/metrics", "/static/limen.css"):
                assert head.headers["content-length"] == str(len(got.content)), path
        assert client.head("/v1/search").status_code == 405
        assert client.head("/nothing").status_code == 404
