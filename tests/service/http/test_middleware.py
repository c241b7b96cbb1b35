"""Security headers and request ids on every answer, nothing for other origins."""

from __future__ import annotations

import httpx


def test_other_origins_are_told_nothing(address: str) -> None:
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.options(f"{address}/v1/search", headers=headers),
        httpx.get(f"{address}/v1/info", headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert httpx.options(f"{address}/v1/search", headers=headers).status_code == 405


def test_every_answer_is_dressed(address: str) -> None:
    for path in ("/livez", "/v1/info", "/dashboard", "/nothing", "/static/limen.css"):
        response = httpx.get(address + path, headers={"X-Request-Id": "given-7"})
        assert response.headers["x-request-id"] == "given-7"
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
