"""Bodies of the endpoints that change a gallery and learn the truth about decisions (contract, section 7)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import Body, EncoderInput, Filter, ItemId, Reference, VectorValues

Metadata = dict[str, JsonValue]
Label = Annotated[str, Field(min_length=1, max_length=512)]


class NewItem(Body):
    """An item to write: a vector, or an input that the encoder takes."""

    id: ItemId
    label: Label
    vector: VectorValues | None = None
    input: EncoderInput | None = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _exactly_one(self) -> NewItem:
        if (self.vector is None) == (self.input is None):
            raise ValueError("exactly one of vector and input is needed")
        return self


class UpsertRequest(Body):
    """Items to write; those with a known id are replaced."""

    items: Annotated[list[NewItem], Field(min_length=1)]
    model_hash: str | None = Field(default=None, description="Refused with 409 unless it is this model's.")


class UpsertResponse(Schema):
    """The items are on disk and found by the next search."""

    upserted: int
    new: int
    items: int = Field(description="Live items of the gallery now.")


class Item(Schema):
    """A stored item; ``vector`` is a unit row."""

    id: str
    label: str
    metadata: Metadata
    vector: list[Finite] | None = None


class ItemPage(Schema):
    """Items by id; ``next_cursor`` is null on the last page."""

    items: list[Item]
    next_cursor: str | None


class DeleteRequest(Body):
    """What to delete: ids, or everything a filter holds for."""

    ids: Annotated[list[ItemId], Field(min_length=1)] | None = None
    filter: Filter | None = None
    rebuild: bool = Field(default=False, description="Build the index anew, so that its files forget too.")

    @model_validator(mode="after")
    def _exactly_one(self) -> DeleteRequest:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("exactly one of ids and filter is needed")
        return self


class DeleteResponse(Schema):
    """Deleted items are gone from searches; ``remains_in`` names the places this did not reach."""

    deleted: int
    items: int = Field(description="Live items of the gallery now.")
    remains_in: list[str]
    job: str | None = Field(description="The job that builds the index anew, where that was asked for.")


class FeedbackRequest(Body):
    """The truth about a decision, by its id, or about a pair."""

    decision_id: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    a: Reference | None = None
    b: Reference | None = None
    same: bool = Field(description="Whether the two are of one class.")

    @model_validator(mode="after")
    def _decision_or_pair(self) -> FeedbackRequest:
        pair = self.a is not None and self.b is not None
        if (self.a is None) != (self.b is None) or (self.decision_id is None) != pair:
            raise ValueError("either decision_id or both a and b are needed")
        return self


class Feedback(Schema):
    """One line of what the service was told."""

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
    """The truth is on disk; ``total`` counts what is known about this model."""

    total: int
