"""HTTP bodies of the label audit of a gallery."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api_schemas.base import Finite, Schema
from api_schemas.label_audit import FindingKind, LabelFinding


class LabelAuditPage(Schema):
    """Some of the findings, most suspicious first, and what the audit says of all items.

    Findings of items that were deleted since are left out.
    """

    created_at: datetime
    items: int
    labels: int
    threshold: Finite
    threshold_from: str
    counts: dict[FindingKind, int]
    spellings: list[list[str]] = Field(
        description="Labels that differ in spelling alone; at most 100 groups."
    )
    unknown_labels: list[str] = Field(description="Labels that look like the lack of one; at most 100.")
    changed_since: bool = Field(description="Whether items were written or deleted after the audit.")
    left_out: int
    total: int = Field(description="Findings of the kind that was asked for.")
    findings: list[LabelFinding]
    next_offset: int | None
