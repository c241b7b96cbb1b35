"""Liveness and readiness while the bundle is loaded."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.models import loaded_model
from service.settings import load_settings


def test_no_readiness_before_the_bundle_is_loaded(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, probe = threading.Event(), loaded_model._probe_gallery

    def slow(*given: Any) -> Any:
        go.wait(20)
        return probe(*given)

    monkeypatch.setattr(loaded_model, "_probe_gallery", slow)
    app = create_app(load_settings(bundle=bundle.path))
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/v1/info"):
            waiting = client.get(path)
            assert waiting.status_code == 503
            assert waiting.json()["type"] == "/problems/not-ready"
            assert waiting.headers["retry-after"] == "1"
        go.set()
        until = time.monotonic() + 20
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
