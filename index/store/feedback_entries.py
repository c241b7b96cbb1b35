"""Feedback as it is listed: with the kept query that it is about, and the item which that became."""

from __future__ import annotations

from collections.abc import Iterator

from api_schemas.http.gallery import FeedbackEntry
from index.store.service_records import ServiceRecords
from index.store.unknown_records import UnknownRecords

ENTRIES_AT_ONCE = 1_000
_STORED = FeedbackEntry.model_fields.keys() - {"id", "unknown", "item"}


def list_feedback(
    records: ServiceRecords,
    unknowns: UnknownRecords,
    before: int | None,
    limit: int,
    *,
    corrections: bool = False,
) -> list[tuple[int, FeedbackEntry]]:
    """Feedback before a number, newest first, each with its number."""
    rows = records.read_feedback_page(before, limit, corrections=corrections)
    kept = unknowns.read_subjects([subject for _, subject, _ in rows])
    entries = []
    for number, subject, feedback in rows:
        values = {name: getattr(feedback, name) for name in _STORED}
        query = kept.get(subject)
        if query is not None:
            values |= {"unknown": query.id, "item": query.item}
            if feedback.not_label is not None and query.label == feedback.not_label:
                values["b"] = query.candidate
        entries.append((number, FeedbackEntry(id=subject, **values)))
    return entries


def iterate_feedback(records: ServiceRecords, unknowns: UnknownRecords) -> Iterator[FeedbackEntry]:
    """All feedback, newest first."""
    before: int | None = None
    while block := list_feedback(records, unknowns, before, ENTRIES_AT_ONCE):
        before = block[-1][0]
        yield from (entry for _, entry in block)
