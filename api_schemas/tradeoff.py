"""What a threshold trades for what: error rates over a grid of thresholds, of all items and of groups.

Part of the report, so that a threshold can be moved and its rates read without computing anything again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api_schemas.base import Finite, Schema
from api_schemas.operating_point import Aggregate, GallerySize, Score

RateName = Literal["far", "frr", "fpir", "fnir"]


class RateCurves(Schema):
    """Rates by threshold, one value each; null where nothing is counted.

    ``far`` and ``frr`` are over pairs, ``fpir`` and ``fnir`` over queries; ``*_upper`` are one-sided upper
    bounds over newly sampled classes.
    """

    far: list[Finite] | None = None
    far_upper: list[Finite] | None = None
    frr: list[Finite] | None = None
    fpir: list[Finite] | None = None
    fpir_upper: list[Finite] | None = None
    fnir: list[Finite] | None = None


class GroupCurves(RateCurves):
    """The rates of the items that share a value of a metadata column."""

    column: str
    value: str
    n_items: int
    n_classes: int


class ClassesOver(Schema):
    """By threshold, how many of the classes that have the rate have more than ``level`` of it."""

    rate: RateName
    level: Finite
    n_classes: int
    classes: list[int]


class Tradeoff(RateCurves):
    """The rates of every threshold that an endpoint could have, with the score and 1:N rule that decide it.

    ``thresholds`` ascend; scores from a threshold on are accepted. ``gallery`` is what FPIR is given for.
    ``method`` says in words on what it was counted.
    """

    endpoint: Literal["verify", "match"]
    score: Score
    aggregate: Aggregate
    gallery: GallerySize | None
    n_items: int
    n_classes: int
    n_genuine_pairs: int
    n_impostor_pairs: int
    n_unknown_queries: int
    confidence: Finite = Field(gt=0, lt=1)
    thresholds: list[Finite] = Field(min_length=2)
    classes_over: list[ClassesOver]
    groups: list[GroupCurves]
    method: str
