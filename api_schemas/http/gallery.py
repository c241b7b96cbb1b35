"""HTTP bodies of the endpoints that change a gallery, and of feedback about decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

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
from api_schemas.http.decisions import Metadata as Metadata
from common.label_spelling import is_blank

Label = ItemId


def _check_visible(text: str) -> str:
    if is_blank(text):
        raise ValueError("send text that can be seen: this is of blanks and invisible characters alone")
    return text


NewLabel = Annotated[ItemId, AfterValidator(_check_visible)]


class NewItem(Body):
    """An item to write: with a vector, or with an input for the encoder."""

    id: ItemId
    label: NewLabel
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
        description="Labels that case, blanks, invisible characters or Unicode form alone tell apart from "
        "others of the gallery, and labels that look like the lack of one.",
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
    """Ground truth for a decision, by its id, for a pair or for a kept query: `same`, or a correction.

    A correction, `not_label`, says that a query is not of a class. The query is a decision's, a kept one, a
    stored item, a vector or an input.
    """

    decision_id: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    a: Reference | None = None
    b: Reference | None = None
    unknown: Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-z0-9-]+$")] | None = Field(
        default=None, description="Id of a kept query (`/v1/unknowns`)."
    )
    id: ItemId | None = None
    vector: VectorValues | None = None
    input: EncoderInput | None = None
    same: bool | None = Field(default=None, description="Whether the two are of one class.")
    not_label: Label | None = Field(
        default=None,
        description="The class that the query is not of. Later matches obey: that query is answered with the "
        "next class above the threshold, or unknown.",
    )

    @model_validator(mode="after")
    def _check_subject(self) -> FeedbackRequest:
        if (self.same is None) == (self.not_label is None):
            raise ValueError("exactly one of same and not_label is needed")
        if (self.a is None) != (self.b is None):
            raise ValueError("a pair has both a and b")
        given = [
            name
            for name in ("decision_id", "a", "unknown", "id", "vector", "input")
            if getattr(self, name) is not None
        ]
        if self.same is not None and given not in (["decision_id"], ["a"], ["unknown"]):
            raise ValueError("either decision_id, unknown, or both a and b are needed")
        if self.not_label is not None and (len(given) != 1 or given == ["a"]):
            raise ValueError("not_label takes exactly one of decision_id, unknown, id, vector and input")
        return self


class Feedback(Schema):
    """One stored piece of feedback: the ground truth of a decision or pair, and what was decided.

    ``fingerprint`` is what a correction knows its query by; ``a`` the item that the query was, if any.
    """

    at: datetime
    model_hash: str
    operating_point: str | None
    decision: str | None
    score: Finite | None
    a: str | None
    b: str | None
    same: bool
    source: Literal["match", "verify", "pair", "correction"]
    not_label: str | None = None
    fingerprint: str | None = None


class FeedbackResponse(Schema):
    """The feedback is on disk; ``total`` is the number of feedback entries of this model."""

    total: int
    id: str = Field(description="Takes it back: `DELETE /v1/feedback/{id}`.")
    decision: str | None = Field(default=None, description="What was decided.")
    score: Finite | None = Field(default=None, description="The score of that decision.")
    threshold: Finite | None = Field(default=None, description="The threshold that it was compared with.")


class FeedbackEntry(Schema):
    """One piece of feedback that is stored; ``not_label`` is that of a correction, which matches obey."""

    id: str
    at: datetime
    source: Literal["match", "verify", "pair", "correction"]
    same: bool
    not_label: str | None
    decision: str | None
    score: Finite | None
    operating_point: str | None
    a: str | None
    b: str | None
    unknown: str | None = Field(default=None, description="The kept query that it is about.")
    item: str | None = Field(default=None, description="The item that this query became.")


class FeedbackPage(Schema):
    """One page of feedback, newest first; ``next_cursor`` is null on the last page."""

    feedback: list[FeedbackEntry]
    next_cursor: int | None
    total: int
    corrections: int = Field(description="How many of all are corrections.")
