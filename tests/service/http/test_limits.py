"""Limits of filters and answers, and bodies in forms that are not read."""

from __future__ import annotations

import codecs
import gzip
import json
from typing import Any

import httpx
import pytest

from tests.service.bad_bodies import JSON, check_problem

ONE: dict[str, Any] = {"queries": [{"id": "item-0"}]}


def search(address: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{address}/v1/search", json=ONE | options, timeout=60)


def nest(levels: int) -> dict[str, Any]:
    """A filter of so many levels."""
    return {"label": "class-1"} if levels == 1 else {"$not": nest(levels - 1)}


def test_the_depth_of_a_filter_is_that_of_its_joins(address: str) -> None:
    assert search(address, filter=nest(8)).status_code == 200
    assert (
        "deeper than 8 levels (LIMEN_MAX_FILTER_DEPTH)"
        in check_problem(search(address, filter=nest(9)), 422).detail
    )
    joined: dict[str, Any] = {"camera": {"$in": [1, 2]}}
    for _ in range(7):
        joined = {"$and": [joined, {"camera": {"$gte": 0, "$lte": 9}}]}
    assert search(address, filter=joined).status_code == 200, "lists and comparisons are no levels"
    deep: Any = 1
    for _ in range(20):
        deep = {"$eq": deep}
    assert "camera" in check_problem(search(address, filter={"camera": deep}), 422).detail


def test_conditions_and_values_of_a_filter_are_bounded(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_filter_conditions=10, max_filter_values=20)
    for good in (
        {"$or": [{"camera": n} for n in range(10)]},
        {"$and": [{"camera": {"$gte": 0, "$lt": 2}}] * 5},
        {"camera": {"$in": list(range(20))}},
    ):
        assert search(address, filter=good).status_code == 200
    for bad, words in (
        ({"$or": [{"camera": n} for n in range(11)]}, "over 10 comparisons"),
        ({"$and": [{"camera": {"$gte": 0, "$lt": 2}}] * 6}, "over 10 comparisons"),
        ({"$and": [{"$not": {"$or": [{"camera": 1}] * 4}}] * 3}, "over 10 comparisons"),
        ({"$or": [{}] * 11}, "over 10 comparisons"),
        ({"camera": {"$in": list(range(21))}}, "over 20 values"),
        ({"$or": [{"camera": {"$nin": list(range(11))}}] * 2}, "over 20 values"),
    ):
        problem = check_problem(search(address, filter=bad), 422)
        assert problem.type == "/problems/limit-exceeded"
        assert words in problem.detail
        text = httpx.post(
            f"{address}/v1/search",
            params={"filter": json.dumps(bad)},
            headers={"content-type": "application/octet-stream"},
            content=b"\0\0\x80\x3f" * 16,
        )
        assert words in check_problem(text, 422).detail, "also in the query string"


def test_answers_are_bounded(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_answer_values=2400, max_answer_bytes=3000)
    assert search(address, k=10).status_code == 200
    many = ONE["queries"] * 31
    for bad in ({"k": 101, "include": ["vector"]}, {"k": 301}, {"queries": many, "k": 10}):
        problem = check_problem(search(address, **bad), 422)
        assert problem.type == "/problems/limit-exceeded"
        assert "LIMEN_MAX_ANSWER_VALUES" in problem.detail
    assert "LIMEN_MAX_ANSWER_BYTES" in check_problem(search(address, k=50), 422).detail


def test_bodies_that_are_compressed_or_not_utf8_are_named(address: str) -> None:
    body = json.dumps(ONE)
    for content, headers, words in (
        (gzip.compress(body.encode()), {"content-encoding": "gzip"}, "compressed (gzip)"),
        (gzip.compress(body.encode()), {}, "compressed (gzip)"),
        (b"x", {"content-encoding": "br"}, "compressed (br)"),
        (body.encode("utf-16"), {}, "UTF-16 or UTF-32"),
        (body.encode("utf-16-be"), {}, "UTF-16 or UTF-32"),
        (body.encode("utf-32"), {}, "UTF-16 or UTF-32"),
        (body.encode(), {"content-type": "application/json; charset=latin-1"}, "latin-1"),
    ):
        answer = httpx.post(f"{address}/v1/search", content=content, headers=JSON | headers)
        problem = check_problem(answer, 415)
        assert words in problem.detail
        assert "send it" in problem.detail
    for content, kind in (
        (codecs.BOM_UTF8 + body.encode(), "application/json"),
        (body.encode(), 'application/json; charset="UTF-8"'),
    ):
        answer = httpx.post(f"{address}/v1/search", content=content, headers={"content-type": kind})
        assert answer.status_code == 200


def test_json_has_a_limit_of_its_own(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_json_bytes=1000)
    spaces = b'{"queries": [{"id": "item-0"}]}' + b" " * 970
    problem = check_problem(httpx.post(f"{address}/v1/search", headers=JSON, content=spaces), 413)
    assert "LIMEN_MAX_JSON_BYTES" in problem.detail
    rows = httpx.post(
        f"{address}/v1/search?k=1",
        headers={"content-type": "application/octet-stream"},
        content=b"\0\0\x80\x3f" * 16 * 100,
    )
    assert rows.status_code == 200


def test_bodies_in_memory_are_bounded_in_all(start: Any, bundle: Any) -> None:
    address = start(bundle.path, max_buffered_bytes=100_000)
    body = b'{"queries": [{"id": "item-0"}]}'
    assert httpx.post(f"{address}/v1/search", headers=JSON, content=body + b" " * 90_000).status_code == 200
    refused = httpx.post(f"{address}/v1/search", headers=JSON, content=body + b" " * 110_000)
    assert "too many large bodies" in check_problem(refused, 429).detail
    for _ in range(3):
        again = httpx.post(f"{address}/v1/search", headers=JSON, content=body + b" " * 90_000)
        assert again.status_code == 200, "what was refused is not counted any more"


@pytest.mark.parametrize("path", ["/v1/search", "/v1/match"])
def test_the_json_schema_has_the_hard_limits(address: str, path: str) -> None:
    schemas = httpx.get(f"{address}/openapi.json").json()["components"]["schemas"]
    name = {"/v1/search": "SearchRequest", "/v1/match": "MatchRequest"}[path]
    assert schemas[name]["properties"]["queries"]["maxItems"] == 100_000
