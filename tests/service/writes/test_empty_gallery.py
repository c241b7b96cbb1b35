"""A gallery that deletion has emptied is served again, and answers every question."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.models import loaded_model
from service.settings import load_settings
from tests.service.bundles import serve
from tests.service.processes import read_refusal

VECTOR = [float(value) for value in np.random.default_rng(0).normal(size=16)]


@pytest.mark.parametrize("rebuild", [False, True])
def test_an_emptied_gallery_is_served_again(bundle: Any, tmp_path: Path, rebuild: bool) -> None:
    everything = {"filter": {"camera": {"$gte": 0}}, "rebuild": rebuild}
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        answer = client.post("/v1/items/delete", json=everything).json()
        assert (answer["deleted"], answer["items"]) == (320, 0)
        while rebuild and client.get(f"/v1/jobs/{answer['job']}").json()["status"] != "done":
            pass
    for _ in range(2):
        with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
            assert client.get("/readyz").json()["self_recall"] == 1.0
            for path in (
                "/v1/info",
                "/metrics",
                "/v1/models",
                "/v1/items",
                "/dashboard",
                "/v1/operating-points",
            ):
                assert client.get(path).status_code == 200, path
            for path in ("/v1/search", "/v1/match"):
                answer = client.post(path, json={"queries": [{"vector": VECTOR}]})
                assert answer.status_code == 200, answer.text
            assert (
                client.post("/v1/match", json={"queries": [{"vector": VECTOR}]}).json()["results"][0][
                    "decision"
                ]
                == "unknown"
            )
            pair = {"a": {"vector": VECTOR}, "b": {"vector": VECTOR}}
            assert client.post("/v1/verify", json={"pairs": [pair]}).status_code == 200
            filtered = {"queries": [{"vector": VECTOR}], "filter": {"camera": 1}}
            assert client.post("/v1/search", json=filtered).status_code in {200, 422}
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        new = {"items": [{"id": "a", "label": "a", "vector": VECTOR, "metadata": {"camera": "front"}}]}
        assert client.put("/v1/items", json=new).json()["items"] == 1
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        assert client.get("/readyz").json()["probed_rows"] == 1
        hits = client.post("/v1/search", json={"queries": [{"vector": VECTOR}]}).json()["results"][0]["hits"]
        assert [hit["id"] for hit in hits] == ["a"]


def test_anything_wrong_in_loading_ends_the_process_with_a_message(
    bundle: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(loaded_model, "_probe_gallery", fail)
    app = create_app(load_settings(bundle=bundle.path, port=0))
    ended = []
    app.state.limen.on_failure = lambda: ended.append(True)

    async def start_and_stop() -> None:
        async with app.router.lifespan_context(app):
            pass

    logger = logging.getLogger("limen.service")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    asyncio.run(start_and_stop())
    assert ended == [True]
    assert "ZeroDivisionError: division by zero" in str(app.state.limen.failure)
    assert "loading failed" in caplog.text


def test_two_services_may_not_share_a_data_folder(two_bundles: Any, tmp_path: Path) -> None:
    _, one, two = two_bundles
    with serve(one.path, data=tmp_path):
        for removed in ("none", "service.lock"):
            (tmp_path / removed).unlink(missing_ok=True)
            line = read_refusal(str(two.path), "--data", str(tmp_path), "--port", "0")
            assert "one writer" in line
            assert str(tmp_path) in line
    with serve(two.path, data=tmp_path) as at:
        assert httpx.get(f"{at}/readyz").status_code == 200
