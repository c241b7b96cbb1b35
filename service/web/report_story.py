"""What a recomputed report says beside the hold-out's, in a sentence."""

from __future__ import annotations

from api_schemas.report import Report
from evaluation.report.headline import format_small


def compare_with_holdout(report: Report, holdout: Report | None) -> str | None:
    """Whether a report's OPIS lies within the hold-out's interval; None where they cannot be compared."""
    found = report.consistency
    value = found.opis if found.opis_debiased is None else found.opis_debiased
    interval = None if holdout is None else holdout.consistency.opis_ci
    if value is None or interval is None or holdout is None or holdout.score != report.score:
        return None
    low, high = interval
    what = f"The {report.split}'s OPIS, {format_small(value)},"
    reach = f"{format_small(low)} to {format_small(high)}"
    if value > high:
        return (
            f"{what} lies above the hold-out's interval ({reach}): one "
            "threshold serves its classes less evenly than the proof promises. Look at its worst classes."
        )
    if value < low:
        return (
            f"{what} lies below the hold-out's interval ({reach}): one "
            "threshold serves its classes more evenly than those of the hold-out."
        )
    return f"{what} lies within the hold-out's interval ({reach})."
