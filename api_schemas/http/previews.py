"""HTTP bodies of previews: what people are shown of an item in a list."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api_schemas.base import Schema
from api_schemas.http.decisions import Body, ItemId
from api_schemas.http.gallery import Metadata

MOST_PREVIEWS = 100
PREVIEW_FIELDS, PREVIEW_TEXT, PREVIEW_VALUES = 8, 200, 8


class PreviewRequest(Body):
    """The items to preview."""

    ids: Annotated[list[ItemId], Field(min_length=1, max_length=MOST_PREVIEWS, fail_fast=True)]


class Preview(Schema):
    """An item as a list shows it."""

    id: str
    label: str
    kind: Literal["picture", "text", "metadata"] = Field(
        description="`picture`: `GET /v1/items/{id}/thumbnail` is a picture. `text`: the item's text is in "
        "`text`. `metadata`: neither is known of it."
    )
    text: str | None = Field(
        description="The first 500 characters of the text that was kept, or of the metadata field `text`."
    )
    metadata: Metadata = Field(
        description=f"The first {PREVIEW_FIELDS} fields, each text cut to {PREVIEW_TEXT} characters, each "
        f"list to {PREVIEW_VALUES} values."
    )


class PreviewResponse(Schema):
    """Previews in the order of the ids; an id that no item has is left out."""

    previews: list[Preview]
