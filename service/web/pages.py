"""Pages and the files they are made of; nothing is fetched from anywhere else."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly
from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGES = Environment(
    loader=PackageLoader("service.web", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_VERSIONS = {"version": version("limen"), "plotly_version": version("plotly")}


@dataclass(frozen=True)
class StaticFile:
    """A file's bytes, plain and compressed, with the tag that says whether a browser has them."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str


def page(template: str, **values: Any) -> Response:
    """A page from a template; every value is escaped."""
    return HTMLResponse(_PAGES.get_template(template).render(**_VERSIONS, **values))


@cache
def find_map_style_id() -> str:
    """The id under which plotly looks for the style of its maps, and adds it if it is not there.

    The content security policy forbids adding it; a page without maps needs nothing but the id.
    """
    found = re.search(rb'getElementById\("([0-9a-f]{64})"\)', _static_files()["plotly.min.js"].content)
    return "plotly-map-style" if found is None else found[1].decode()


def get_static_file(name: str) -> StaticFile | None:
    """A file of the pages by its plain name; None where there is none."""
    return _static_files().get(name)


def build_static_response(request: Request, file: StaticFile) -> Response:
    """The file, compressed where the browser takes that, or "not modified" where it has it."""
    headers = {"ETag": file.tag, "Cache-Control": "max-age=3600", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@cache
def _static_files() -> dict[str, StaticFile]:
    found = {
        one.name: one.read_bytes()
        for one in files("service.web").joinpath("static").iterdir()
        if one.is_file()
    }
    found["plotly.min.js"] = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    return {
        name: StaticFile(
            content=content,
            compressed=gzip.compress(content, 5, mtime=0),
            media_type=_TYPES[Path(name).suffix],
            tag=f'"{hashlib.sha256(content).hexdigest()[:20]}"',
        )
        for name, content in found.items()
    }
