"""The OpenAPI document: request bodies, problems and examples that FastAPI cannot derive itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE, Problem
from service.http.bodies import JSON, OCTETS
from service.http.idempotent_writes import HEADER, WRITES

REFERENCE = "#/components/schemas/{model}"
_body_models: set[type[BaseModel]] = set()
_MEANING = {
    400: "The request cannot be read.",
    401: "A key is needed.",
    403: "The key does not allow this.",
    404: "Not found.",
    408: "The body did not arrive in time.",
    409: "Not possible in the current state: no operating point, read-only, or another model.",
    413: "The body is too large.",
    415: "The media type of the body is not supported.",
    422: "A field cannot be used; `errors` names it.",
    429: "Overloaded: try again after `Retry-After` seconds.",
    503: "Not ready, or the deadline passed.",
}
# asked with POST, and nothing is written
READING_PATHS = frozenset({"/v1/search", "/v1/match", "/v1/verify", "/v1/embeddings", "/v1/unknowns/search"})
_IDEMPOTENCY_KEY = {
    "name": HEADER.decode().title(),
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "New for every write: the same request with the same key is carried out once, and "
    "answered as before with `Idempotency-Replayed: true`; another request with it is 422 `key-reused`.",
}
READ_STATUSES = (401, 403, 422, 429, 503)
BODY_STATUSES = (400, 401, 403, 408, 413, 415, 422, 429, 503)


def describe_body(model: type[BaseModel], examples: dict[str, Any], raw_rows: bool = False) -> dict[str, Any]:
    """``openapi_extra`` of an endpoint that reads its body itself."""
    _body_models.add(model)
    content: dict[str, Any] = {
        JSON: {
            "schema": {"$ref": REFERENCE.format(model=model.__name__)},
            "examples": {name: {"value": value} for name, value in examples.items()},
        }
    }
    if raw_rows:
        content |= describe_octets("Little-endian float32 rows; options go into the query string.")
    return {"requestBody": {"required": True, "content": content}}


def describe_octets(description: str) -> dict[str, Any]:
    """``content`` of a binary body or answer."""
    return {OCTETS: {"schema": {"type": "string", "format": "binary", "description": description}}}


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of an endpoint: the statuses that it answers with a problem document."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """The document of an app, built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        models = sorted(_body_models | {Problem}, key=lambda model: model.__name__)
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=REFERENCE
        )
        schemas |= definitions.get("$defs", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        components["schemas"] = dict(sorted(schemas.items()))
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete_operation(path, operation)
                if method.upper() in WRITES and path.startswith("/v1/") and path not in READING_PATHS:
                    operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
                    for status, said in describe_problems(409, 422).items():
                        operation["responses"].setdefault(str(status), said)
        app.openapi_schema = document
    return app.openapi_schema


def _complete_operation(path: str, operation: dict[str, Any]) -> None:
    """Add the key, and describe FastAPI's own 422 as a problem."""
    if path.startswith("/v1/"):
        operation["security"] = [{"key": []}]
    unprocessable = operation["responses"].get("422")
    if unprocessable is not None and PROBLEM_MEDIA_TYPE not in unprocessable.get("content", {}):
        operation["responses"] |= {str(key): value for key, value in describe_problems(422).items()}
