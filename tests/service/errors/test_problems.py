"""Bad requests: a 4xx problem that names the field, within a second of computing, never a 5xx."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.service.bad_bodies import CORPUS, JSON, check_problem


@pytest.mark.parametrize("name", CORPUS)
def test_bad_body(address: str, name: str) -> None:
    path, headers, body, status, words = CORPUS[name]
    # the service runs in this process; what other processes do does not count
    start = time.process_time()
    response = httpx.post(address + path, headers=headers, content=body)
    assert time.process_time() - start < 1.0
    problem = check_problem(response, status)
    assert words in problem.detail


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
    check_problem(httpx.request(method, address + path), status)


def test_every_problem_type_can_be_fetched(address: str) -> None:
    problem = check_problem(httpx.post(address + "/v1/search", headers=JSON, content="{}"), 422)
    assert httpx.get(address + problem.type).json()["status"] == 422
