"""HTTP bodies of the endpoints that change a gallery, and of feedback about decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import (
    MOST_ELEMENTS,
    Body,
    EncoderInput,
    Filter,
    ItemId,
    Reference,
    VectorValues,
)

Metadata = dict[str, JsonValue]
Label = ItemId


class NewItem(Body):
    """An item to write: with a vector, or with an input for the encoder."""

    id: ItemId
    label: Label
    vector: VectorValues | None = None
    input: EncoderInput | None = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_exactly_one(self) -> NewItem:
        if (self.vector is None) == (self.input is None):
            raise ValueError("exactly one of vector and input is needed")
        return self


class UpsertRequest(Body):
    """Items to write; an item whose id is already stored is replaced."""

    items: Annotated[list[NewItem], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)]
    model_hash: str | None = Field(
        default=None, description="Answered with 409 if it is not the active model's."
    )
    fold_labels: bool = Field(
        default=False,
        description="A label takes the spelling that the gallery has where case, blanks or Unicode form "
        "alone differ.",
    )


class UpsertResponse(Schema):
    """The items are on disk and searchable."""

    upserted: int
    new: int
    items: int = Field(description="Items in the gallery now.")
    notes: list[str] = Field(
        default_factory=list,
        description="Labels that case, blanks or Unicode form alone tell apart from others of the gallery, "
        "and labels that look like the lack of one.",
    )


class Item(Schema):
    """A stored item; ``vector`` has length 1."""

    id: str
    label: str
    metadata: Metadata
    vector: list[Finite] | None = None


class ItemPage(Schema):
    """One page of items in the order of their ids; ``next_cursor`` is null on the last page."""

    items: list[Item]
    next_cursor: str | None


class DeleteRequest(Body):
    """The items to delete: by ids, or all that match a filter."""

    ids: Annotated[list[ItemId], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)] | None = None
    filter: Filter | None = None
    rebuild: bool = Field(
        default=False,
        description="Rebuild the index in the background, so that deleted vectors also leave its files.",
    )

    @model_validator(mode="after")
    def _check_exactly_one(self) -> DeleteRequest:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("exactly one of ids and filter is needed")
        return self


class DeleteResponse(Schema):
    """Deleted items are no longer found; ``remains_in`` names where their data still is."""

    deleted: int
    items: int = Field(description="Items in the gallery now.")
    remains_in: list[str]
    job: str | None = Field(description="Id of the job that rebuilds the index, if `rebuild` was set.")


class FeedbackRequest(Body):
    """Ground truth for a decision, by its id, or for a pair."""

    decision_id: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    a: Reference | None = None
    b: Reference | None = None
    same: bool = Field(description="Whether the two are of one class.")

    @model_validator(mode="after")
    def _check_decision_or_pair(self) -> FeedbackRequest:
        pair = self.a is not None and self.b is not None
        if (self.a is None) != (self.b is None) or (self.decision_id is None) != pair:
            raise ValueError("either decision_id or both a and b are needed")
        return self


class Feedback(Schema):
    """One stored piece of feedback: the ground truth of a decision or pair, and what was decided."""

    at: datetime
    model_hash: str
    operating_point: str | None
    decision: str | None
    score: Finite | None
    a: str | None
    b: str | None
    same: bool
    source: Literal["match", "verify", "pair"]


class FeedbackResponse(Schema):
    """The feedback is on disk; ``total`` is the number of feedback entries of this model."""

    total: int
