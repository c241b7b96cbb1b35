"""HTML pages and their static files, all served by the service itself."""

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
from markupsafe import Markup, escape

from service import VERSION
from service.auth.viewer import find_viewer
from service.settings import ServiceSettings
from service.web.navigation import PAGES

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGES = Environment(
    loader=PackageLoader("service.web", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters["code"] = lambda text: Markup(re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", str(escape(text))))
_VERSIONS = {"version": VERSION, "plotly_version": version("plotly")}


@dataclass(frozen=True)
class StaticFile:
    """A file's bytes, plain and compressed, with its ETag."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str


def render_page(request: Request, template: str, *, here: str, **values: Any) -> Response:
    """A page from a template; every value is escaped.

    Args:
        here: the name of the page in the navigation, whose entry is marked.
    """
    settings: ServiceSettings = request.app.state.settings
    return HTMLResponse(
        _PAGES.get_template(template).render(
            **_VERSIONS,
            pages=PAGES,
            here=here,
            viewer=find_viewer(request),
            read_only=settings.data is None,
            **values,
        )
    )


@cache
def find_map_style_id() -> str:
    """The id of the style element for maps, which plotly adds unless an element has this id.

    The content security policy forbids adding it, and a page without maps needs the id alone.
    """
    match = re.search(rb'getElementById\("([0-9a-f]{64})"\)', _read_static_files()["plotly.min.js"].content)
    return "plotly-map-style" if match is None else match[1].decode()


_PAGES.globals["find_map_style_id"] = find_map_style_id


def get_static_file(name: str) -> StaticFile | None:
    """A static file by name, or None."""
    return _read_static_files().get(name)


def build_static_response(request: Request, file: StaticFile) -> Response:
    """The file, compressed if the browser accepts that, or 304 if the browser already has it."""
    # modules import each other without a version: the browser asks whether they have changed
    caching = "max-age=3600" if request.url.query else "no-cache"
    headers = {"ETag": file.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@cache
def _read_static_files() -> dict[str, StaticFile]:
    contents = {
        file.name: file.read_bytes()
        for file in files("service.web").joinpath("static").iterdir()
        if file.is_file()
    }
    contents["plotly.min.js"] = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    return {
        name: StaticFile(
            content=content,
            compressed=gzip.compress(content, 5, mtime=0),
            media_type=_TYPES[Path(name).suffix],
            etag=f'"{hashlib.sha256(content).hexdigest()[:20]}"',
        )
        for name, content in contents.items()
    }
