"""Bodies that are slow, too large or heavy: refused, and their memory returned."""

from __future__ import annotations

import json
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.encoder.encoders import encode_data_uri, encode_png
from tests.service.bad_bodies import CORPUS, JSON, OCTETS, check_problem
from tests.service.bundles import make_image_bundle
from tests.service.processes import measure_resident, run_service


def test_a_body_that_does_not_come_is_given_up(start: Any, bundle: Any) -> None:
    host, port = start(bundle.path, deadline=0.2).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        head = (
            "POST /v1/search HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            "Content-Length: 90",
        )
        slow.sendall("\r\n".join([*head, "", "{"]).encode())
        answer = slow.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"/problems/body-timeout" in answer


def build_bombs() -> dict[str, str]:
    """Images that are small to send and large to open."""
    wide = encode_png(Image.new("1", (10_000, 10_000)))
    # says 30,000 x 30,000 in its header and has nothing behind it
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 6, 0, 0, 0)
    chunk = b"IHDR" + header
    claims = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    zipped = zlib.compress(b"\0" * (64 << 20))
    data = b"IDAT" + zipped
    bomb = claims + struct.pack(">I", len(zipped)) + data + struct.pack(">I", zlib.crc32(data))
    return {
        "10,000 x 10,000": encode_data_uri(wide),
        "no pixels": encode_data_uri(claims),
        "a zip bomb": encode_data_uri(bomb),
    }


# bytes; what is imported and remembered with the first requests, against 32 MiB of the largest body
KEPT = 16 << 20


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_memory_is_back_where_it_was(bundle: Any, tmp_path: Path, kind: str, record_property: Any) -> None:
    bundle = bundle if kind == "vectors" else make_image_bundle(tmp_path / "images")
    wide = np.random.default_rng(0).normal(size=(1001, 512)).round(6).tolist()
    heavy: list[tuple[str, dict[str, str], bytes | str]] = [
        (path, headers, body) for path, headers, body, _, _ in CORPUS.values()
    ]
    if kind == "vectors":
        heavy.append(("/v1/search", JSON, json.dumps({"queries": [{"vector": row} for row in wide]})))
        heavy.append(("/v1/search", JSON, b'{"queries": [' + b"[" * 2_000_000))
        heavy.append(("/v1/search", OCTETS, bytes(32 << 20)))
    else:
        heavy += [("/v1/embeddings", JSON, json.dumps({"input": bomb})) for bomb in build_bombs().values()]
    with run_service(str(bundle.path)) as (process, address), httpx.Client(base_url=address) as client:

        def send() -> None:
            for path, headers, body in heavy:
                begun = time.perf_counter()
                response = client.post(path, headers=headers, content=body)
                slowest[0] = max(slowest[0], time.perf_counter() - begun)
                assert 400 <= response.status_code < 500 or kind == "images", response.text

        slowest = [0.0]
        before = measure_resident(process.pid)
        for _ in range(3):
            send()
        # what is free is given back beside the event loop, soon after an answer
        deadline = time.monotonic() + 5.0
        while (kept := measure_resident(process.pid) - before) > KEPT and time.monotonic() < deadline:
            time.sleep(0.05)
        record_property("figures", f"slowest {slowest[0]:.2f} s, memory {kept / 2**20:+.1f} MiB")
        assert kept <= KEPT


def test_body_limit(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_body_bytes=1000)
    announced = httpx.post(address + "/v1/search", headers=JSON, content=b" " * 1001)
    check_problem(announced, 413)
    streamed = httpx.post(address + "/v1/search", headers=JSON, content=(b" " * 300 for _ in range(10)))
    check_problem(streamed, 413)
    fine = httpx.post(address + "/v1/search", headers=JSON, content='{"queries": [{"id": "item-0"}]}')
    assert fine.status_code == 200
