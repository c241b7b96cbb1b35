"""The last 24 hours in a few figures."""

from __future__ import annotations

from dataclasses import dataclass

from api_schemas.http.monitoring import Alert


@dataclass(frozen=True)
class DaySummary:
    """The last 24 hours, for people.

    Attributes:
        decisions: of ``/v1/match``.
        verifications: of ``/v1/verify``.
        share_unknown: of the decisions; None without any.
        scores_as_calibrated: whether the latest scores are distributed as calibrated; None: not measured.
        has_drift: whether queries or gallery have drifted; None: not measured.
        unknown_queries: the share of the latest queries that seem to be of no class in the gallery; None: not
            measured.
        details: a sentence of each of the readings, by signal.
        alerts: those that fire, the latest first.
        is_kept: in the database of the data folder; else in the memory of this process.
    """

    decisions: int
    verifications: int
    share_unknown: float | None
    scores_as_calibrated: bool | None
    has_drift: bool | None
    unknown_queries: float | None
    details: dict[str, str]
    alerts: tuple[Alert, ...]
    is_kept: bool
