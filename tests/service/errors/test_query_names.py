"""Options in the query string: one that an endpoint does not have is refused, as a field of a body is."""

from __future__ import annotations

import httpx
import pytest

from tests.service.bad_bodies import check_problem

QUERY = {"queries": [{"id": "item-0"}]}


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "/v1/items?lable=class-0", "query.lable: unknown option; did you mean 'label'?"),
        ("GET", "/v1/classes?limit=3&page=2", "query.page: unknown option; valid are: limit, offset"),
        ("GET", "/v1/info?verbose=1", "query.verbose: unknown option; this endpoint has none"),
        ("DELETE", "/v1/items/item-0?rebuid=true", "did you mean 'rebuild'?"),
        ("POST", "/v1/search?k=3", "query.k: with a JSON body options are fields of the body"),
        ("POST", "/v1/match?candidates=5", "query.candidates"),
    ],
)
def test_an_option_that_is_none_is_refused(address: str, method: str, path: str, named: str) -> None:
    body = QUERY if method == "POST" else None
    problem = check_problem(httpx.request(method, address + path, json=body), 422)
    assert named in problem.detail


def test_options_that_there_are_and_those_of_pages_are_taken(address: str) -> None:
    assert len(httpx.get(f"{address}/v1/items?label=class-0&limit=3").json()["items"]) == 3
    assert httpx.get(f"{address}/dashboard?from=mail").status_code == 200
