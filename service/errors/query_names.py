"""Options in the query string: an endpoint refuses those it does not have, as it does fields of a body."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from api_schemas.yaml_config import suggest_key
from service.errors.problems import INVALID_REQUEST, build_field_problem

API = "/v1/"


async def check_query_names(request: Request) -> None:
    """Raises a problem for an option that the endpoint does not have; pages take any."""
    if not request.scope["query_string"] or not request.scope["path"].startswith(API):
        return
    known = set(_list_names(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            hint = suggest_key(name, sorted(known)).rstrip(".") if known else "this endpoint has none"
            raise build_field_problem(INVALID_REQUEST, f"query.{name:.60}", f"unknown option; {hint}")


def check_no_options(request: Request) -> None:
    """Raises a problem for options in the query string of a JSON body, in which they belong."""
    for name in request.query_params if request.scope["query_string"] else ():
        raise build_field_problem(
            INVALID_REQUEST, f"query.{name:.60}", "with a JSON body options are fields of the body"
        )


def _list_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _list_names(inner)
