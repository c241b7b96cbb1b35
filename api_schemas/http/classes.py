"""HTTP bodies of classes: how each is served by one threshold, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api_schemas.base import Finite, Schema

ClassSource = Literal["holdout", "gallery"]
ClassSort = Literal["worst", "far", "frr", "items", "label"]


class ClassSummary(Schema):
    """A class: its items in the gallery now, and its rates; null where the source has not measured it."""

    label: str
    items: int
    measured_items: int = Field(description="Items that the rates were measured on.")
    far: Finite | None
    frr: Finite | None
    utility: Finite | None = Field(description="How well the threshold serves the class, 1 at best.")


class RatesSource(Schema):
    """Where rates of classes come from."""

    source: ClassSource = Field(description="`holdout`: the bundle's report; `gallery`: a recomputed one.")
    at: Literal["threshold", "range"] | None = Field(
        description="`threshold`: rates at the threshold of the operating point. `range`: means over the "
        "calibration range of the report. Null where nothing was measured."
    )
    operating_point: str | None
    threshold: Finite | None


class ClassPage(Schema):
    """Some of the classes that the gallery holds or the source has measured."""

    classes: list[ClassSummary]
    total: int = Field(description="Classes that the search finds.")
    measured: int = Field(description="Of these, classes with rates.")
    next_offset: int | None
    rates: RatesSource


class ItemPair(Schema):
    """Two items and how alike they are; ``score`` is what the 1:1 operating point thresholds."""

    a: str
    b: str
    b_label: str
    similarity: Finite
    score: Finite
    accepted: bool | None = Field(description="By the active 1:1 threshold; null without one.")


class Lookalike(Schema):
    """Another class that the items of this one are near to."""

    label: str
    items: int
    score: Finite = Field(description="The best score of an item of either.")
    accepted: int | None = Field(description="Of the near pairs, how many the active 1:1 threshold accepts.")


class ScoreHistogram(Schema):
    """Counts of pairs between ``edges``, which are one more than the counts."""

    edges: list[Finite]
    genuine: list[int]
    impostor: list[int]


class ClassDetail(Schema):
    """A class as the gallery holds it now, and its rates."""

    label: str
    items: int
    tightness: Finite | None = Field(
        description="Mean similarity of two items of the class; null for a class of one item."
    )
    rates: list[ClassSummary] = Field(description="Of the hold-out report and of the gallery's, if measured.")
    rates_from: list[RatesSource]
    score_kind: str
    operating_point: str | None = Field(description="The active 1:1 operating point.")
    threshold: Finite | None
    compared_items: int = Field(description="Items of the class that were compared; of more an even sample.")
    compared_others: int = Field(description="Items of other classes in the histogram, an even sample.")
    genuine_pairs: int
    impostor_pairs: int
    genuine_rejected: int | None = Field(description="Of the genuine pairs that were compared.")
    impostor_accepted: int | None = Field(description="Of the impostor pairs that were compared.")
    histogram: ScoreHistogram | None
    hardest_genuine: list[ItemPair] = Field(description="The least alike pairs within the class.")
    hardest_impostor: list[ItemPair] = Field(
        description="The most alike pairs with other classes; no item comes more than twice."
    )
    lookalikes: list[Lookalike]
