"""A thumbnail as a response: a small picture, or the beginning of a text."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request, Response

from encoder.thumbnails import TEXT, WEBP, get_media_type

# a picture goes with what it shows: browsers ask each time whether it is still there
_CACHE = "private, no-cache"


def describe_thumbnail(of: str) -> dict[int | str, dict[str, Any]]:
    """The responses of an endpoint that answers a thumbnail, for the API description."""
    return {
        200: {
            "description": f"A WebP picture, or the beginning of the {of}'s text.",
            "content": {WEBP: {"schema": {"type": "string", "format": "binary"}}, TEXT: {}},
        },
        304: {"description": "It is the one that `If-None-Match` names."},
    }


def build_thumbnail_response(request: Request, content: bytes) -> Response:
    """The thumbnail, or 304 if the browser already has it."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": _CACHE}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=get_media_type(content), headers=headers)
