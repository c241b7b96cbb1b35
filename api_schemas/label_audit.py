"""``label_audit.json``: items to look at because their label may be wrong, ranked. No verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api_schemas.base import SCHEMA_VERSION, Finite, Schema

FindingKind = Literal["other_label_nearer", "copy_of_other_label", "near_copy_of_other_label", "outlier"]


class LabelFinding(Schema):
    """An item to look at, and why.

    ``other_similarity`` and ``own_similarity`` are means over the up to five nearest items of the other and
    of its own label; ``suspicion`` is their difference, by which findings are ranked.
    """

    rank: int = Field(ge=1)
    id: str
    label: str
    kinds: list[FindingKind]
    reason: str = Field(description="Why, in words.")
    suspicion: Finite | None = Field(description="How much nearer the other label is; null for an outlier.")
    suggested_label: str | None = Field(description="The label of its nearest items; null for an outlier.")
    own_similarity: Finite | None = Field(description="Null where no other item has its label.")
    other_similarity: Finite | None
    agreement: Finite | None = Field(description="Fraction of its 10 nearest items that have its label.")
    training_margin: Finite | None = Field(
        default=None,
        description="How much more alike it was to its own class than to any other, averaged over "
        "the run; null for items that it was not trained on.",
    )
    nearest_id: str | None = Field(description="Its nearest item of another label.")
    nearest_label: str | None
    nearest_score: Finite | None = Field(description="The score of the two, as a decision would compute it.")
    accepted: bool | None = Field(description="Whether the threshold accepts the two as the same.")


class LabelAudit(Schema):
    """The findings of an audit; of the same items in any order the same.

    ``threshold`` is that of ``threshold_from``: an operating point, or the given data. ``spellings`` are
    labels that are equal but for case, blanks or Unicode form.
    """

    schema_version: int = SCHEMA_VERSION
    created_at: datetime
    model_hash: str
    items: int
    labels: int
    threshold: Finite
    threshold_from: str
    counts: dict[FindingKind, int] = Field(description="Items of each kind, those left out of the list too.")
    spellings: list[list[str]]
    unknown_labels: list[str] = Field(description="Labels that look like the lack of one.")
    left_out: int = Field(description="Findings beyond the length of the list.")
    findings: list[LabelFinding]
