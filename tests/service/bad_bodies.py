"""Bodies that cannot be used, and the check of the problem that answers them."""

from __future__ import annotations

import re

import httpx
import numpy as np

from api_schemas.http.problem import Problem

JSON = {"content-type": "application/json"}

OCTETS = {"content-type": "application/octet-stream"}

# how pydantic words its errors
LIBRARY_WORDS = re.compile("[Ii]nput should|should have|should match|Field required|Extra inputs|Value error")

ZEROS, VECTOR = "0," * 15 + "0", "1," * 15 + "1"

DEEP = '{"$not":' * 500 + "{}" + "}" * 500
SEARCH, MATCH, VERIFY = "/v1/search", "/v1/match", "/v1/verify"

# path, headers, body, status, words of the detail
CORPUS: dict[str, tuple[str, dict[str, str], bytes | str, int, str]] = {
    "not json": (SEARCH, JSON, "hello", 400, "not JSON"),
    "cut off": (SEARCH, JSON, '{"queries": [', 400, "not JSON"),
    "empty": (SEARCH, JSON, "", 400, "not JSON"),
    "a list": (SEARCH, JSON, "[]", 422, "object"),
    "null": (MATCH, JSON, "null", 422, "object"),
    "no queries key": (SEARCH, JSON, "{}", 422, "queries"),
    "no queries": (SEARCH, JSON, '{"queries": []}', 422, "queries"),
    "unknown key": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "kk": 3}', 422, "kk"),
    "NaN": (SEARCH, JSON, '{"queries": [{"vector": [NaN]}]}', 422, "queries.0.vector.0"),
    "Infinity": (MATCH, JSON, '{"queries": [{"vector": [-Infinity]}]}', 422, "queries.0.vector.0"),
    "too large a number": (
        SEARCH,
        JSON,
        f'{{"queries": [{{"vector": [1e999,{VECTOR[2:]}]}}]}}',
        422,
        "queries.0",
    ),
    "a large number": (
        SEARCH,
        JSON,
        f'{{"queries": [{{"vector": [1e300,{VECTOR[2:]}]}}]}}',
        422,
        "queries.0",
    ),
    "a huge integer": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "k": ' + "9" * 400 + "}", 422, "k"),
    "a huger integer": (
        SEARCH,
        JSON,
        '{"queries": [{"id": "item-0"}], "k": ' + "9" * 9000 + "}",
        400,
        "JSON",
    ),
    "k 0": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "k": 0}', 422, "k"),
    "k as text": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "k": "3"}', 422, "k"),
    "k true": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "k": true}', 422, "k"),
    "k beyond the limit": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "k": 1001}', 422, "at most 1000"),
    "numbers as text": (SEARCH, JSON, '{"queries": [{"vector": ["1", "2"]}]}', 422, "queries.0.vector"),
    "a zero vector": (SEARCH, JSON, f'{{"queries": [{{"vector": [{ZEROS}]}}]}}', 422, "zero vector"),
    "wrong dimension": (SEARCH, JSON, '{"queries": [{"vector": [1, 2, 3]}]}', 422, "16 numbers, found 3"),
    "an empty vector": (SEARCH, JSON, '{"queries": [{"vector": []}]}', 422, "queries.0.vector"),
    "nested vector": (SEARCH, JSON, '{"queries": [{"vector": [[1]]}]}', 422, "queries.0.vector"),
    "two references": (SEARCH, JSON, '{"queries": [{"id": "item-0", "vector": [1]}]}', 422, "exactly one"),
    "no reference": (SEARCH, JSON, '{"queries": [{}]}', 422, "exactly one"),
    "unknown id": (SEARCH, JSON, '{"queries": [{"id": "nobody"}]}', 422, "nobody"),
    "surrogate id": (SEARCH, JSON, '{"queries": [{"id": "\\ud800"}]}', 400, "JSON"),
    "input without encoder": (SEARCH, JSON, '{"queries": [{"input": "x"}]}', 422, "no encoder"),
    "too many queries": (
        SEARCH,
        JSON,
        '{"queries": [' + '{"id": "item-0"},' * 1000 + '{"id": "item-0"}]}',
        422,
        "1001",
    ),
    "deep filter": (SEARCH, JSON, f'{{"queries": [{{"id": "item-0"}}], "filter": {DEEP}}}', 400, "JSON"),
    "deepish filter": (
        SEARCH,
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": ' + '{"$not":' * 40 + '{"label": "x"}' + "}" * 40 + "}",
        422,
        "filter",
    ),
    "unknown operator": (
        SEARCH,
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": {"label": {"$like": "x"}}}',
        422,
        "like",
    ),
    "filter type": (
        SEARCH,
        JSON,
        '{"queries": [{"id": "item-0"}], "filter": {"camera": {"$gt": "x"}}}',
        422,
        "camera",
    ),
    "filter list": (SEARCH, JSON, '{"queries": [{"id": "item-0"}], "filter": []}', 422, "filter"),
    "form": (SEARCH, {"content-type": "application/x-www-form-urlencoded"}, "a=b", 415, "application/json"),
    "no type": (SEARCH, {"content-type": ""}, "{}", 415, "application/json"),
    "torn float32": (SEARCH, OCTETS, b"\x00" * 63, 422, "63 bytes"),
    "no rows": (MATCH, OCTETS, b"", 422, "0 bytes"),
    "NaN rows": (SEARCH, OCTETS, np.full(16, np.nan, "<f4").tobytes(), 422, "NaN"),
    "zero rows": (MATCH, OCTETS, np.zeros(32, "<f4").tobytes(), 422, "body.0"),
    "too many rows": (MATCH, OCTETS, np.ones(16 * 1001, "<f4").tobytes(), 422, "1001"),
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
        SEARCH,
        JSON,
        '{"queries": [{"input": 3}]}',
        422,
        "queries.0.input: send text, or send a list",
    ),
    "a rule that is none": (
        SEARCH,
        JSON,
        '{"queries": [{"id": "item-0"}], "rank_by": "taste"}',
        422,
        "rank_by: send 'similarity' or 'score'",
    ),
    "pairs": (VERIFY, JSON, '{"pairs": []}', 422, "pairs"),
    "half a pair": (VERIFY, JSON, '{"pairs": [{"a": {"id": "item-0"}}]}', 422, "pairs.0.b"),
    "pair with a wrong end": (
        VERIFY,
        JSON,
        '{"pairs": [{"a": {"id": "item-0"}, "b": {"vector": [1]}}]}',
        422,
        "pairs.0.b.vector",
    ),
    "embeddings of vectors": ("/v1/embeddings", JSON, '{"input": "x"}', 422, "no encoder"),
    "not utf-8": (SEARCH, JSON, b'{"queries": [{"id": "\xff\xfe"}]}', 400, "JSON"),
}


def check_problem(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status
    assert problem.request_id == response.headers["x-request-id"]
    assert problem.detail.endswith(".")
    assert not LIBRARY_WORDS.search(response.text), response.text
    return problem
