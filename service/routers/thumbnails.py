"""Thumbnails of items, and previews: what the pages show of an item."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import JsonValue

from api_schemas.http.decisions import ItemId
from api_schemas.http.previews import (
    MOST_PREVIEWS,
    PREVIEW_FIELDS,
    PREVIEW_TEXT,
    PREVIEW_VALUES,
    Preview,
    PreviewRequest,
    PreviewResponse,
)
from encoder.thumbnails import TEXT, TEXT_CHARACTERS, WEBP, get_media_type
from index.gallery.gallery import Gallery
from index.items.metadata import MetadataValue
from index.items.stored_item import StoredItem
from service.errors.problems import NOT_FOUND, ServiceProblem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.http.thumbnail_responses import build_thumbnail_response, describe_thumbnail
from service.routers import items
from service.state import ActiveModel, CurrentState

router = APIRouter(tags=["items"])
_read_ids = build_body_reader(PreviewRequest, "ids", lambda limits: MOST_PREVIEWS)


@router.get(
    "/v1/items/{item_id:text}/thumbnail",
    summary="Read the thumbnail of an item",
    response_class=Response,
    responses={
        **describe_thumbnail("item"),
        **describe_problems(*READ_STATUSES, 404),
    },
)
async def thumbnail(request: Request, item_id: ItemId, model: ActiveModel, state: CurrentState) -> Response:
    """The small picture that was kept of the item, or the first 500 characters of its text."""
    if not request.scope.get("raw_path", b"/thumbnail").endswith(b"/thumbnail"):
        # an item whose id ends like this, as it is written in a path: %2Fthumbnail
        return await items.read(f"{item_id}/thumbnail", model, state)
    content = await state.looking.run(lambda: model.gallery.read_thumbnails([item_id]).get(item_id))
    if content is None:
        if await state.looking.run(lambda: model.gallery.get(item_id)) is None:
            raise ServiceProblem(NOT_FOUND, f"No item has the id '{item_id[:100]}'.")
        raise ServiceProblem(
            NOT_FOUND,
            f"No thumbnail is kept of the item '{item_id[:100]}': export with --thumbnails 96, or start the "
            "service with LIMEN_THUMBNAILS=96 and write the item again with its input.",
        )
    return build_thumbnail_response(request, content)


@router.post(
    "/v1/items/previews",
    summary="Preview items",
    response_model=PreviewResponse,
    responses=describe_problems(*BODY_STATUSES),
    openapi_extra=describe_body(PreviewRequest, {"two items": {"ids": ["a-1", "a-2"]}}),
)
async def previews(
    body: Annotated[PreviewRequest, Depends(_read_ids)], model: ActiveModel, state: CurrentState
) -> Response:
    """Up to 100 items as a list shows them: whether there is a picture, the text, some of the metadata."""
    shown = await state.looking.run(lambda: build_previews(model.gallery, body.ids))
    return write_json_response(PreviewResponse(previews=shown))


def build_previews(gallery: Gallery, ids: list[str]) -> list[Preview]:
    """Previews of items in the order of their ids, without those that there are not."""
    thumbnails = gallery.read_thumbnails(ids)
    found = (gallery.get(item_id) for item_id in ids)
    return [_build_preview(item, thumbnails.get(item.id)) for item in found if item is not None]


def _build_preview(item: StoredItem, thumbnail: bytes | None) -> Preview:
    text = item.metadata.get("text")
    if thumbnail is not None and get_media_type(thumbnail) == TEXT:
        text = thumbnail.decode("utf-8", "replace")
    is_picture = thumbnail is not None and get_media_type(thumbnail) == WEBP
    shown = text[:TEXT_CHARACTERS] if isinstance(text, str) and not is_picture else None
    fields = list(item.metadata.items())[:PREVIEW_FIELDS]
    return Preview(
        id=item.id,
        label=item.label,
        kind="picture" if is_picture else "metadata" if shown is None else "text",
        text=shown,
        metadata={name: _shorten(value) for name, value in fields},
    )


def _shorten(value: MetadataValue) -> JsonValue:
    """Texts without their end, lists with their first values."""
    if isinstance(value, list):
        return [part[:PREVIEW_TEXT] if isinstance(part, str) else part for part in value[:PREVIEW_VALUES]]
    return value[:PREVIEW_TEXT] if isinstance(value, str) else value
