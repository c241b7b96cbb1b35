"""Whatever is sent: a 4xx problem that names the field, in under a second, never a 5xx."""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from api_schemas.http.problem import Problem
from tests.encoder.encoders import data_uri, png
from tests.service.bundles import make_image_bundle
from tests.service.processes import resident, running

JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
# how pydantic words its errors
LIBRARY_WORDS = re.compile("[Ii]nput should|should have|should match|Field required|Extra inputs|Value error")
ZEROS, VECTOR = "0," * 15 + "0", "1," * 15 + "1"
DEEP = '{"$not":' * 500 + "{}" + "}" * 500

# path, headers, body, status, words of the detail
CORPUS: dict[str, tuple[str, dict[str, str], bytes | str, int, str]] = {
    "not json": ("/v1/search", JSON, "hello", 400, "not JSON"),
    "cut off": ("/v1/search", JSON, '{"queries": [', 400, "not JSON"),
    "empty": ("/v1/search", JSON, "", 400, "not JSON"),
    "a list": ("/v1/search", JSON, "[]", 422, "object"),
    "null": ("/v1/match", JSON, "null", 422, "object"),
    "no queries key": ("/v1/search", JSON, "{}", 422, "queries"),
    "no queries": ("/v1/search", JSON, '{"queries": []}', 422, "queries"),
    "unknown key": ("/v1/search", JSON, '{"queries": [{"id": "item-0"}], "kk": 3}', 422, "kk"),
    "NaN": ("/v1/search", JSON, '{"queries": [{"vector": [NaN]}]}', 422, "queries.0.vector.0"),
    "Infinity": ("/v1/match", JSON, '{"queries": [{"vector": [-Infinity]}]}', 422, "queries.0.vector.0"),
    "too large a number": (
        "/v1/search",
        JSON,
        f'{{"queries": [{{"vector": [1e999,{VECTOR[2:]}]}}]}}',
        422,
        "queries.0",
    ),
    "a large number": (
        "/v1/search",
        JSON,
        f'{{"queries": [{{"vector": [1e300,{VECTOR[2:]}]}}]}}',
        422,
        "queries.0",
    ),
    "a huge integer": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "k": ' + "9" * 400 + "}",
        422,
        "k",
    ),
    "a huger integer": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "k": ' + "9" * 9000 + "}",
        400,
        "JSON",
    ),
    "k 0": ("/v1/search", JSON, '{"queries": [{"id": "item-0"}], "k": 0}', 422, "k"),
    "k as text": ("/v1/search", JSON, '{"queries": [{"id": "item-0"}], "k": "3"}', 422, "k"),
    "k true": ("/v1/search", JSON, '{"queries": [{"id": "item-0"}], "k": true}', 422, "k"),
    "k beyond the limit": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "k": 1001}',
        422,
        "at most 1000",
    ),
    "numbers as text": ("/v1/search", JSON, '{"queries": [{"vector": ["1", "2"]}]}', 422, "queries.0.vector"),
    "a zero vector": ("/v1/search", JSON, f'{{"queries": [{{"vector": [{ZEROS}]}}]}}', 422, "zero vector"),
    "wrong dimension": (
        "/v1/search",
        JSON,
        '{"queries": [{"vector": [1, 2, 3]}]}',
        422,
        "16 numbers, found 3",
    ),
    "an empty vector": ("/v1/search", JSON, '{"queries": [{"vector": []}]}', 422, "queries.0.vector"),
    "nested vector": ("/v1/search", JSON, '{"queries": [{"vector": [[1]]}]}', 422, "queries.0.vector"),
    "two references": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0", "vector": [1]}]}',
        422,
        "exactly one",
    ),
    "no reference": ("/v1/search", JSON, '{"queries": [{}]}', 422, "exactly one"),
    "unknown id": ("/v1/search", JSON, '{"queries": [{"id": "nobody"}]}', 422, "nobody"),
    "surrogate id": ("/v1/search", JSON, '{"queries": [{"id": "\\ud800"}]}', 400, "JSON"),
    "input without encoder": ("/v1/search", JSON, '{"queries": [{"input": "x"}]}', 422, "no encoder"),
    "too many queries": (
        "/v1/search",
        JSON,
        '{"queries": [' + '{"id": "item-0"},' * 1000 + '{"id": "item-0"}]}',
        422,
        "1001",
    ),
    "deep filter": (
        "/v1/search",
        JSON,
        f'{{"queries": [{{"id": "item-0"}}], "filter": {DEEP}}}',
        400,
        "JSON",
    ),
    "deepish filter": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": ' + '{"$not":' * 40 + '{"label": "x"}' + "}" * 40 + "}",
        422,
        "filter",
    ),
    "unknown operator": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": {"label": {"$like": "x"}}}',
        422,
        "like",
    ),
    "filter type": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": {"camera": {"$gt": "x"}}}',
        422,
        "camera",
    ),
    "filter list": ("/v1/search", JSON, '{"queries": [{"id": "item-0"}], "filter": []}', 422, "filter"),
    "form": (
        "/v1/search",
        {"content-type": "application/x-www-form-urlencoded"},
        "a=b",
        415,
        "application/json",
    ),
    "no type": ("/v1/search", {"content-type": ""}, "{}", 415, "application/json"),
    "torn float32": ("/v1/search", OCTETS, b"\x00" * 63, 422, "63 bytes"),
    "no rows": ("/v1/match", OCTETS, b"", 422, "0 bytes"),
    "NaN rows": ("/v1/search", OCTETS, np.full(16, np.nan, "<f4").tobytes(), 422, "NaN"),
    "zero rows": ("/v1/match", OCTETS, np.zeros(32, "<f4").tobytes(), 422, "body.0"),
    "too many rows": ("/v1/match", OCTETS, np.ones(16 * 1001, "<f4").tobytes(), 422, "1001"),
    "raw: bad k": ("/v1/search?k=x", OCTETS, np.ones(16, "<f4").tobytes(), 422, "k"),
    "raw: k 0": ("/v1/match?k=0", OCTETS, np.ones(16, "<f4").tobytes(), 422, "k"),
    "raw: unknown option": ("/v1/search?kk=1", OCTETS, np.ones(16, "<f4").tobytes(), 422, "kk"),
    "raw: bad filter": ("/v1/search?filter=%7B", OCTETS, np.ones(16, "<f4").tobytes(), 400, "filter"),
    "raw: min_score nan": (
        "/v1/search?min_score=nan",
        OCTETS,
        np.ones(16, "<f4").tobytes(),
        422,
        "min_score",
    ),
    "an input that is a number": (
        "/v1/search",
        JSON,
        '{"queries": [{"input": 3}]}',
        422,
        "queries.0.input: send text, or send a list",
    ),
    "a rule that is none": (
        "/v1/search",
        JSON,
        '{"queries": [{"id": "item-0"}], "rank_by": "taste"}',
        422,
        "rank_by: send 'similarity' or 'score'",
    ),
    "pairs": ("/v1/verify", JSON, '{"pairs": []}', 422, "pairs"),
    "half a pair": ("/v1/verify", JSON, '{"pairs": [{"a": {"id": "item-0"}}]}', 422, "pairs.0.b"),
    "pair with a wrong end": (
        "/v1/verify",
        JSON,
        '{"pairs": [{"a": {"id": "item-0"}, "b": {"vector": [1]}}]}',
        422,
        "pairs.0.b.vector",
    ),
    "embeddings of vectors": ("/v1/embeddings", JSON, '{"input": "x"}', 422, "no encoder"),
    "not utf-8": ("/v1/search", JSON, b'{"queries": [{"id": "\xff\xfe"}]}', 400, "JSON"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_bad_body(address: str, name: str) -> None:
    path, headers, body, status, words = CORPUS[name]
    begun = time.perf_counter()
    response = httpx.post(address + path, headers=headers, content=body)
    assert time.perf_counter() - begun < 1.0
    problem = check(response, status)
    assert words in problem.detail


def bombs() -> dict[str, str]:
    """Images that are small to send and large to open."""
    wide = png(Image.new("1", (10_000, 10_000)))
    # says 30,000 x 30,000 in its header and has nothing behind it
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 6, 0, 0, 0)
    chunk = b"IHDR" + header
    claims = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    zipped = zlib.compress(b"\0" * (64 << 20))
    data = b"IDAT" + zipped
    bomb = claims + struct.pack(">I", len(zipped)) + data + struct.pack(">I", zlib.crc32(data))
    return {"10,000 x 10,000": data_uri(wide), "no pixels": data_uri(claims), "a zip bomb": data_uri(bomb)}


# bytes; what is imported and remembered with the first requests, against 32 MiB of the largest body
KEPT = 16 << 20


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_memory_is_back_where_it_was(made: Any, tmp_path: Path, kind: str, record_property: Any) -> None:
    bundle = made if kind == "vectors" else make_image_bundle(tmp_path / "images")
    wide = np.random.default_rng(0).normal(size=(1001, 512)).round(6).tolist()
    heavy: list[tuple[str, dict[str, str], bytes | str]] = [
        (path, headers, body) for path, headers, body, _, _ in CORPUS.values()
    ]
    if kind == "vectors":
        heavy.append(("/v1/search", JSON, json.dumps({"queries": [{"vector": row} for row in wide]})))
        heavy.append(("/v1/search", JSON, b'{"queries": [' + b"[" * 2_000_000))
        heavy.append(("/v1/search", OCTETS, bytes(32 << 20)))
    else:
        heavy += [("/v1/embeddings", JSON, json.dumps({"input": one})) for one in bombs().values()]
    with running(str(bundle.path)) as (process, address), httpx.Client(base_url=address) as client:

        def send() -> None:
            for path, headers, body in heavy:
                begun = time.perf_counter()
                response = client.post(path, headers=headers, content=body)
                slowest[0] = max(slowest[0], time.perf_counter() - begun)
                assert 400 <= response.status_code < 500 or kind == "images", response.text

        slowest = [0.0]
        before = resident(process.pid)
        for _ in range(3):
            send()
        # what is free is given back beside the event loop, soon after an answer
        deadline = time.monotonic() + 5.0
        while (kept := resident(process.pid) - before) > KEPT and time.monotonic() < deadline:
            time.sleep(0.05)
        record_property("figures", f"slowest {slowest[0]:.2f} s, memory {kept / 2**20:+.1f} MiB")
        assert kept <= KEPT


def check(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status
    assert problem.request_id == response.headers["x-request-id"]
    assert problem.detail.endswith(".")
    assert not LIBRARY_WORDS.search(response.text), response.text
    return problem


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/search", 405),
        ("DELETE", "/v1/info", 405),
        ("GET", "/static/missing.js", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/v1/reports/consistency?source=x", 422),
        ("GET", "/problems/none", 404),
    ],
)
def test_bad_path(address: str, method: str, path: str, status: int) -> None:
    check(httpx.request(method, address + path), status)


def test_every_problem_type_can_be_fetched(address: str) -> None:
    problem = check(httpx.post(address + "/v1/search", headers=JSON, content="{}"), 422)
    assert httpx.get(address + problem.type).json()["status"] == 422


def test_body_limit(start: Any, made: Any) -> None:
    address = start(made.path, max_body_bytes=1000)
    announced = httpx.post(address + "/v1/search", headers=JSON, content=b" " * 1001)
    check(announced, 413)
    streamed = httpx.post(address + "/v1/search", headers=JSON, content=(b" " * 300 for _ in range(10)))
    check(streamed, 413)
    fine = httpx.post(address + "/v1/search", headers=JSON, content='{"queries": [{"id": "item-0"}]}')
    assert fine.status_code == 200
