"""Queries that were kept, and how they are selected, grouped and changed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Literal, NamedTuple

from common.array_types import UnitVectors
from index.items.metadata import MetadataValue

Status = Literal["open", "enrolled", "dropped"]
Verdict = Literal["same", "different"]
ChangeKind = Literal["enroll", "drop", "split", "merge"]


@dataclass(frozen=True, eq=False)
class KeptQuery:
    """A query that was kept; ``vector`` float32 [d], a unit row, empty where it was not read.

    Attributes:
        at: when it was decided, in seconds since 1970.
        candidate, label: the item that was its best candidate, and the class of that.
        subject: the decision, as feedback names it.
        group: the group that it is in; None outside all.
        pin: the group that a person put it in, which stays when queries are grouped again.
        item, name: the item that it became, and under which label.
        offered: the label that it would be a match of now.
        change: the last thing that was done to it.
        reviews: how often a person has judged it.
    """

    id: str
    at: float
    vector: UnitVectors
    decision: str
    candidate: str | None
    label: str | None
    score: float | None
    threshold: float
    operating_point: str
    subject: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    status: Status = "open"
    group: str | None = None
    pin: str | None = None
    item: str | None = None
    name: str | None = None
    offered: str | None = None
    verdict: Verdict | None = None
    reviews: int = 0
    change: str | None = None
    thumbnail: bytes | None = None
    has_thumbnail: bool = False


class PoolFilter(NamedTuple):
    """Which kept queries: all that every given condition holds for."""

    ids: Sequence[str] | None = None
    status: Status | None = None
    decision: str | None = None
    group: str | None = None
    grouped: bool | None = None
    offered: str | None = None
    since: float | None = None
    until: float | None = None
    before: str | None = None


class Group(NamedTuple):
    """A group of kept queries: its id, how many it has, when the first and last came."""

    id: str
    size: int
    first_at: float
    last_at: float


class Change(NamedTuple):
    """What was done to kept queries and can be undone: its id, label and how many."""

    id: str
    name: str | None
    size: int

    @property
    def kind(self) -> str:
        """``enroll``, ``drop``, ``split`` or ``merge``."""
        return self.id.partition("-")[0]


def make_id(microseconds: int) -> str:
    """The id of a query that was decided at a time since 1970; later ones sort after earlier ones as text."""
    return f"q{microseconds:014x}{secrets.token_hex(3)}"


def make_group_id() -> str:
    """The id of a new group."""
    return f"g{secrets.token_hex(6)}"


def make_change_id(kind: ChangeKind) -> str:
    """The id of a change, which names its kind."""
    return f"{kind}-{int(time() * 1e6):014x}{secrets.token_hex(3)}"
