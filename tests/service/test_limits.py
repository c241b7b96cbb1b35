"""Deadlines, threads, and what must never come out: other origins, linked folders, secrets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import faiss
import httpx
import pytest

from limen.client import Client, ServiceError
from service.auth.api_keys import create_key
from service.errors.problems import ServiceProblem
from service.runtime.compute_pool import ALWAYS, ComputePool
from service.telemetry import logs
from tests.service.bundles import serving


def test_a_body_that_does_not_come_is_given_up(start: Any, made: Any) -> None:
    host, port = start(made.path, deadline=0.2).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        head = "POST /v1/search HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 90"
        slow.sendall("\r\n".join([*head, "", "{"]).encode())
        answer = slow.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"/problems/body-timeout" in answer


def test_nobody_waits_longer_than_the_deadline() -> None:
    async def story() -> None:
        compute, go = ComputePool(1, 10.0, 0.05), threading.Event()
        with pytest.raises(ServiceProblem, match="ask for less") as late:
            await compute.run(lambda: go.wait(20))
        assert (late.value.kind.status, late.value.headers["Retry-After"]) == (503, "5")
        go.set()
        await asyncio.sleep(0)
        compute.close()

    asyncio.run(story())


def test_who_would_wait_too_long_is_sent_away_but_a_few_never_are() -> None:
    async def story() -> None:
        compute, go = ComputePool(1, 0.0, 20.0), threading.Event()
        await compute.run(lambda: time.sleep(0.001))
        behind = [asyncio.create_task(compute.run(lambda: go.wait(20), bounded=False)) for _ in range(ALWAYS)]
        clients = [asyncio.create_task(compute.run(lambda: go.wait(20))) for _ in range(ALWAYS)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceProblem, match="an answer would take") as refusal:
            compute.check_wait()
        assert (refusal.value.kind.status, refusal.value.headers["Retry-After"]) == (429, "1")
        with pytest.raises(ServiceProblem, match="an answer would take"):
            await compute.run(lambda: None)
        await asyncio.gather(asyncio.create_task(_set(go)), *behind, *clients)
        compute.check_wait()
        compute.close()

    async def _set(go: threading.Event) -> None:
        go.set()

    asyncio.run(story())


def test_every_computing_thread_has_one_faiss_thread() -> None:
    async def story() -> None:
        compute, together = ComputePool(2, 10.0, 20.0), threading.Barrier(2)

        def threads() -> int:
            together.wait(10)
            return int(faiss.omp_get_max_threads())

        assert await asyncio.gather(compute.run(threads), compute.run(threads)) == [1, 1]
        compute.close()

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        asyncio.run(story())
        assert faiss.omp_get_max_threads() == 3, "OpenMP counts per calling thread"
    finally:
        faiss.omp_set_num_threads(before)


def test_other_origins_are_told_nothing(address: str) -> None:
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.options(f"{address}/v1/search", headers=asked),
        httpx.get(f"{address}/v1/info", headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert httpx.options(f"{address}/v1/search", headers=asked).status_code == 405


def test_a_linked_or_hidden_folder_is_no_bundle(start: Any, made: Any, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "linked").symlink_to(made.path)
    with Client(start(made.path, data=tmp_path / "data", bundles=bundles), retries=0) as client:
        assert [model.version for model in client.models().models] == [made.path.name]
        with pytest.raises(ServiceError, match="no bundle 'linked'"):
            client.load_model("linked")


def test_logs_hold_neither_keys_nor_vectors(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "writer", "write")
    logs.configure("debug")
    try:
        with serving(made.path, data=tmp_path / "data", api_keys_file=file) as at:
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
    asked = [line for line in written if line["message"] == "request"]
    assert {line["path"] for line in asked} >= {"/v1/items", "/v1/search", "/v1/info"}
    assert all(line["request_id"] for line in asked)
    kept = lines + (tmp_path / "data" / "audit.jsonl").read_text()
    assert '"kept"' in kept
    for never in (secret, "not-a-key-of-ours", "0.1234", "0.25,"):
        assert never not in kept
