"""The OpenAPI document: request bodies, problems and examples that FastAPI cannot see for itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE, Problem
from service.http.bodies import OCTETS

REFERENCE = "#/components/schemas/{model}"
_BODIES: set[type[BaseModel]] = set()


def takes(model: type[BaseModel], examples: dict[str, Any], raw_rows: bool = False) -> dict[str, Any]:
    """``openapi_extra`` of an endpoint that reads its body itself."""
    _BODIES.add(model)
    content: dict[str, Any] = {
        "application/json": {
            "schema": {"$ref": REFERENCE.format(model=model.__name__)},
            "examples": {name: {"value": value} for name, value in examples.items()},
        }
    }
    if raw_rows:
        content[OCTETS] = {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "Little-endian float32 rows; options go into the query string.",
            }
        }
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of an endpoint: the statuses it may answer with as problem documents."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


_MEANING = {
    400: "The request cannot be read.",
    401: "A key is needed.",
    403: "The key does not allow this.",
    404: "Nothing is here.",
    408: "The body did not arrive in time.",
    409: "Not possible in this state: no operating point, read-only, or another model.",
    413: "The body is too large.",
    415: "The body has a type that is not taken here.",
    422: "A field cannot be used; `errors` names it.",
    429: "At the limit of load: try again after `Retry-After` seconds.",
    503: "Not ready, or the deadline passed.",
}
READING = (401, 403, 429, 503)
BODY = (400, 401, 403, 408, 413, 415, 422, 429, 503)


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        components = made.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        wanted = sorted(_BODIES | {Problem}, key=lambda model: model.__name__)
        _, definitions = models_json_schema(
            [(model, "validation") for model in wanted], ref_template=REFERENCE
        )
        schemas |= definitions.get("$defs", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in made["paths"].items():
            for operation in operations.values():
                _finish(path, operation)
        made["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = made
    return app.openapi_schema


def _finish(path: str, operation: dict[str, Any]) -> None:
    if path.startswith("/v1/"):
        operation["security"] = [{"key": []}]
    unprocessable = operation["responses"].get("422")
    if unprocessable is not None and PROBLEM_MEDIA_TYPE not in unprocessable.get("content", {}):
        operation["responses"] |= {str(key): value for key, value in problems(422).items()}
