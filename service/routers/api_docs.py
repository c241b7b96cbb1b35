"""``/docs``, the static files of the pages, and ``/problems/{slug}``."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.errors.problems import KINDS, NOT_FOUND, ServiceProblem
from service.http.bodies import JSON, write_json_response
from service.http.openapi import build_openapi
from service.web.pages import build_static_response, get_static_file, render_page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> Response:
    """Redirects to the dashboard."""
    return RedirectResponse("/dashboard", status_code=307)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API page: every endpoint with its body, its examples, and a form to try it."""
    document = build_openapi(request.app.state.api)
    return render_page(
        request,
        "docs.html",
        here="docs",
        description=document["info"]["description"],
        groups=_group_operations(document),
        problems=sorted(KINDS.values(), key=lambda kind: (kind.status, kind.slug)),
    )


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A script, style or picture of the pages."""
    file = get_static_file(name)
    if file is None:
        raise ServiceProblem(NOT_FOUND, f"There is no file {name[:100]}.")
    return build_static_response(request, file)


@router.get("/problems/{slug}")
async def problem(slug: str) -> Response:
    """The meaning of a problem's ``type``."""
    kind = KINDS.get(slug)
    if kind is None:
        raise ServiceProblem(NOT_FOUND, f"There is no problem type {slug[:100]}; /docs lists them all.")
    return write_json_response({"type": f"/problems/{slug}", "title": kind.title, "status": kind.status})


def _group_operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The operations of the OpenAPI document by tag, as the page shows them."""
    schemas = document["components"]["schemas"]
    groups = []
    for tag in document["tags"]:
        operations = [
            _describe_operation(path, method, operation, schemas)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation.get("tags", [])
        ]
        if operations:
            groups.append({"name": tag["name"], "description": tag["description"], "operations": operations})
    return groups


def _describe_operation(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {})
    answer = operation["responses"].get("200", {}).get("content", {})
    return {
        "id": f"{method}{path}".replace("/", "-").replace("{", "").replace("}", ""),
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", path),
        "description": operation.get("description", ""),
        "parameters": operation.get("parameters", []),
        "fields": _list_fields(body, schemas),
        "examples": [
            {"name": name, "json": orjson.dumps(example["value"], option=orjson.OPT_INDENT_2).decode()}
            for name, example in body.get(JSON, {}).get("examples", {}).items()
        ],
        "takes": list(body),
        "answer": _list_fields(answer, schemas),
        "statuses": sorted(operation["responses"]),
    }


def _list_fields(content: dict[str, Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of the JSON schema that a body or an answer refers to."""
    schema = schemas.get(_get_reference(content.get(JSON, {}).get("schema", {})), {})
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "type": _write_type(field),
            "required": name in required,
            "default": orjson.dumps(field["default"]).decode() if "default" in field else None,
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _get_reference(schema: dict[str, Any]) -> str:
    """The name of the component that a schema refers to; empty where it refers to none."""
    return str(schema.get("$ref", "").rpartition("/")[2])


def _write_type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return _get_reference(field)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_write_type(option) for option in field["anyOf"]))
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if field.get("type") == "array":
        return f"[{_write_type(field.get('items', {}))}]"
    return str(field.get("type", field.get("const", "any")))
