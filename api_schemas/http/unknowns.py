"""HTTP bodies of the pool of unknowns: queries that were kept, their groups, and what is done with them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import MOST_ELEMENTS, Body, Filter, Reference
from api_schemas.http.gallery import Metadata, NewLabel

UnknownStatus = Literal["open", "enrolled", "dropped"]
UnknownId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
UnknownIds = Annotated[list[UnknownId], Field(min_length=1, max_length=MOST_ELEMENTS, fail_fast=True)]
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _read_instant(value: object) -> object:
    # pydantic takes bare numbers for seconds or milliseconds by their size, and "2026" for a minute of 1970
    if isinstance(value, str) and _DAY.match(value):
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value
    raise ValueError("send a time such as 2026-11-30T14:00:00Z, or a day such as 2026-11-30")


Instant = Annotated[
    datetime,
    BeforeValidator(_read_instant),
    Field(description="ISO 8601; in UTC unless it names its zone."),
]


class Unknown(Schema):
    """A query that was kept. ``candidate`` was its best candidate, an item of the class ``label``."""

    id: str
    at: datetime
    decision: Literal["match", "unknown"]
    label: str | None
    candidate: str | None
    score: Finite | None
    threshold: Finite
    operating_point: str
    metadata: Metadata
    status: UnknownStatus
    group: str | None = Field(description="The group it is in; null outside all.")
    offered: str | None = Field(description="The label that it would be a match of now.")
    item: str | None = Field(description="The item that it became.")
    name: str | None = Field(description="The label that it was enrolled under.")
    verdict: Literal["same", "different"] | None = Field(description="What a person said of the decision.")
    has_thumbnail: bool
    vector: list[Finite] | None = None


class UnknownPage(Schema):
    """One page of kept queries, newest first; ``next_cursor`` is null on the last page."""

    unknowns: list[Unknown]
    next_cursor: str | None


class UnknownGroup(Schema):
    """Unknown queries that seem to be of one class; ``members`` are the newest of them."""

    id: str
    size: int
    first_at: datetime
    last_at: datetime
    members: list[Unknown]


class OfferedLabel(Schema):
    """Open unknowns that are a match of a label by now; an enrol call with their ids confirms them."""

    label: str
    size: int
    unknowns: list[Unknown]


class UndoableChange(Schema):
    """Something that was done to kept queries and can be undone."""

    change: str
    kind: Literal["enroll", "drop", "split", "merge"]
    label: str | None
    size: int


class PoolCounts(Schema):
    """How many unknown queries the pool holds by status, and how many of the open ones are in no group."""

    open: int
    enrolled: int
    dropped: int
    ungrouped: int
    overflowed: int = Field(
        description="Queries that this process has not kept because more came than it writes."
    )


class UnknownGroups(Schema):
    """Groups of unknowns, the largest first; ``next_cursor`` is null on the last page."""

    groups: list[UnknownGroup]
    next_cursor: str | None
    offered: list[OfferedLabel]
    changes: list[UndoableChange] = Field(description="The last changes, newest first.")
    counts: PoolCounts


class GroupRequest(Body):
    """Group the unknowns again. ``operating_point`` is the 1:1 point whose threshold links two of them."""

    operating_point: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Id or name; the active 1:1 point unless given.",
    )
    min_size: int = Field(default=2, ge=2, le=1_000, description="Smaller groups are noise.")


class EnrollRequest(Body):
    """Make a group, or some unknowns, items of a label."""

    group: UnknownId | None = None
    ids: UnknownIds | None = None
    label: NewLabel
    metadata: Metadata = Field(
        default_factory=dict, description="Set on every new item, beside its query's own."
    )
    fold_labels: bool = Field(
        default=False,
        description="The label takes the spelling that the gallery has where case, blanks or Unicode form "
        "alone differ.",
    )

    @model_validator(mode="after")
    def _check_exactly_one(self) -> EnrollRequest:
        if (self.group is None) == (self.ids is None):
            raise ValueError("exactly one of group and ids is needed")
        return self


class EnrollResponse(Schema):
    """The unknowns are items now; ``offered`` are those of the rest that match the label by now."""

    change: str = Field(description="Takes it back: `POST /v1/unknowns/undo`.")
    label: str
    enrolled: int = Field(description="How many are items of the label by this call or an equal one before.")
    items: list[str] = Field(description="Their ids.")
    offered: list[Unknown]
    left_out: list[str] = Field(
        description="Metadata fields that were not taken over, because the gallery has them as another kind "
        "or takes no more."
    )
    notes: list[str] = Field(description="Labels that spelling alone tells apart from others of the gallery.")


class ArrangeRequest(Body):
    """Correct the groups: ``split`` ids off into a group of their own, ``merge`` groups into the first
    of them, or ``drop`` a group or ids. It holds when the unknowns are grouped again.
    """

    action: Literal["split", "merge", "drop"]
    ids: UnknownIds | None = None
    group: UnknownId | None = None
    groups: Annotated[list[UnknownId], Field(min_length=2, max_length=100)] | None = None

    @model_validator(mode="after")
    def _check_subject(self) -> ArrangeRequest:
        given = {name for name in ("ids", "group", "groups") if getattr(self, name) is not None}
        allowed = {"split": [{"ids"}], "merge": [{"groups"}], "drop": [{"ids"}, {"group"}]}[self.action]
        if given not in allowed:
            needed = " or ".join(name for names in allowed for name in names)
            raise ValueError(f"{self.action} takes exactly {needed}")
        return self


class ChangeResponse(Schema):
    """What was done: to how many unknowns, and the group that they are in."""

    change: str = Field(description="Takes it back: `POST /v1/unknowns/undo`.")
    changed: int
    group: str | None


class UndoRequest(Body):
    """Take back a change, by the id that its answer gave."""

    change: UnknownId


class UndoResponse(Schema):
    """The unknowns are what they were before; ``deleted`` items are gone from the gallery."""

    restored: int
    deleted: int


class UnknownSearchRequest(Body):
    """Was this one here before? The nearest kept queries."""

    queries: Annotated[list[Reference], Field(min_length=1, max_length=100, fail_fast=True)]
    k: int = Field(default=10, ge=1)
    since: Instant | None = None
    until: Instant | None = None
    status: UnknownStatus | None = None


class UnknownHit(Schema):
    """A kept query that was found. ``same`` is the decision of the active 1:1 point, null without one."""

    unknown: Unknown
    similarity: Finite
    score: Finite | None
    same: bool | None


class UnknownSearchResult(Schema):
    """The kept queries nearest to one query, the most similar first."""

    hits: list[UnknownHit]


class UnknownSearchResponse(Schema):
    """One result per query."""

    results: list[UnknownSearchResult]


class DeleteUnknownsRequest(Body):
    """The kept queries to erase: by ids, or all that every condition holds for."""

    ids: UnknownIds | None = None
    group: UnknownId | None = None
    status: UnknownStatus | None = None
    since: Instant | None = None
    until: Instant | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _check_some(self) -> DeleteUnknownsRequest:
        if not any(getattr(self, name) not in (None, {}) for name in type(self).model_fields):
            raise ValueError("name what to erase: at least one condition is needed")
        return self


class DeleteUnknownsResponse(Schema):
    """Erased from the pool; items that some of them became stay, until they are deleted themselves."""

    deleted: int


class Review(Schema):
    """A decision to judge, without its scores: is the query of the class of its best candidate?"""

    id: str
    at: datetime
    kind: Literal["near", "disputed"] = Field(
        description="`near` the threshold, or `disputed`: a person has said that the decision was wrong."
    )
    candidate: str = Field(description="The item that it was compared with.")
    label: str
    metadata: Metadata
    has_thumbnail: bool


class ReviewQueue(Schema):
    """The decisions to judge next; ``reason`` says why there are none."""

    reviews: list[Review]
    reason: str | None
