"""``/docs``, the files of the pages, and the meaning of problem types."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.errors.problems import KINDS, NOT_FOUND, ServiceProblem
from service.http.bodies import write_json_response
from service.http.openapi import document
from service.web.pages import build_static_response, get_static_file, page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> Response:
    """To the page people look at."""
    return RedirectResponse("/dashboard", status_code=307)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every endpoint with its bodies and examples, to be tried from the page."""
    made = document(request.app)
    return page(
        "docs.html",
        here="docs",
        description=made["info"]["description"],
        groups=_groups(made),
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
    """What a problem's ``type`` means."""
    kind = KINDS.get(slug)
    if kind is None:
        raise ServiceProblem(NOT_FOUND, f"There is no problem type {slug[:100]}.")
    return write_json_response({"type": f"/problems/{slug}", "title": kind.title, "status": kind.status})


def _groups(made: dict[str, Any]) -> list[dict[str, Any]]:
    schemas = made["components"]["schemas"]
    groups = []
    for tag in made["tags"]:
        operations = [
            _operation(path, method, operation, schemas)
            for path, methods in made["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation.get("tags", [])
        ]
        if operations:
            groups.append({"name": tag["name"], "description": tag["description"], "operations": operations})
    return groups


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    media = content.get("application/json", {})
    name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
    answer = (
        operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    return {
        "id": f"{method}{path}".replace("/", "-").replace("{", "").replace("}", ""),
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", path),
        "description": operation.get("description", ""),
        "parameters": operation.get("parameters", []),
        "fields": _fields(schemas.get(name, {})),
        "examples": [
            {"name": name, "json": orjson.dumps(one["value"], option=orjson.OPT_INDENT_2).decode()}
            for name, one in media.get("examples", {}).items()
        ],
        "takes": list(content),
        "answer": _fields(schemas.get(answer.get("$ref", "").rpartition("/")[2], {})),
        "statuses": sorted(operation["responses"]),
    }


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "type": _type(field),
            "required": name in required,
            "default": orjson.dumps(field["default"]).decode() if "default" in field else None,
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"]))
    if "enum" in field:
        return " | ".join(str(one) for one in field["enum"])
    if field.get("type") == "array":
        return f"[{_type(field.get('items', {}))}]"
    return str(field.get("type", field.get("const", "any")))
