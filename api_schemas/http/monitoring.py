"""HTTP bodies of ``/v1/monitoring`` and ``/v1/alerts``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import Body

AlertState = Literal["firing", "resolved"]
Step = Literal["minute", "hour", "day"]


class Reading(Schema):
    """One of the figures that alerts are about, as it is now.

    ``value`` is null while there is too little to measure, and ``detail`` says what is missing. ``lower`` is
    what the value is at least, once what chance alone gives has been taken off; a rule compares that.
    ``upper`` is the other end of an interval.
    """

    signal: str
    value: Finite | None
    lower: Finite | None = None
    upper: Finite | None = None
    n: int | None = Field(default=None, description="What the figure was counted on.")
    detail: str


class SeriesOfOutcomes(Schema):
    """Decisions of one endpoint in each period; ``unknown`` are `no_match` for `/v1/verify`."""

    decisions: list[int]
    unknown: list[int]


class Latency(Schema):
    """Quantiles of the time of decisions in each period, in milliseconds; null where there were none."""

    p50: list[Finite | None]
    p95: list[Finite | None]
    p99: list[Finite | None]


class Requests(Schema):
    """Answered requests in each period, and how many of them failed (5xx) or were refused (429)."""

    answered: list[int]
    failed: list[int]
    refused: list[int]


class ScoreHistogram(Schema):
    """Scores of the best candidates that a point decided in the whole range, in bins between ``edges``.

    ``expected`` is what the calibration predicts at the share of unknown queries that fits best.
    """

    endpoint: Literal["match", "verify"]
    operating_point: str
    name: str
    threshold: Finite
    edges: list[Finite]
    counts: list[int]
    expected: list[Finite] | None


class Alert(Schema):
    """An alert: ``firing`` since ``started_at``, until ``resolved_at``."""

    id: str
    rule: str
    state: AlertState
    started_at: datetime
    resolved_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    note: str | None = None
    value: Finite
    threshold: Finite
    summary: str
    todo: str
    detail: str
    model_hash: str


class RuleStatus(Schema):
    """A rule as it is configured, and what it sees now."""

    rule: str
    signal: str
    above: Finite
    clear: Finite
    seconds: Finite = Field(description="How long the condition must hold before the alert fires.")
    state: Literal["ok", "pending", "firing", "unmeasured"]
    summary: str
    todo: str


class WebhookStatus(Schema):
    """Deliveries of the webhook by this process since it started."""

    configured: bool
    queued: int
    delivered: int
    failed: int


class AlertList(Schema):
    """The alerts, firing ones first, then by time; and every rule."""

    alerts: list[Alert]
    rules: list[RuleStatus]
    webhook: WebhookStatus


class AcknowledgeRequest(Body):
    """What was done about an alert, or why nothing need be."""

    note: str | None = Field(default=None, max_length=500)


class Monitoring(Schema):
    """What the service has decided, period by period.

    ``kept`` says where: in the ``database`` of the data folder, or in the ``memory`` of the process, which
    forgets it at its end. With several ``workers`` it is of the one that answered.
    """

    kept: Literal["database", "memory"]
    workers: int
    model_hash: str
    step: Step
    times: list[datetime]
    match: SeriesOfOutcomes
    verify: SeriesOfOutcomes
    latency: Latency
    requests: Requests
    measurements: dict[str, list[Finite | None]] = Field(
        description="Readings by signal, the largest of each period."
    )
    scores: list[ScoreHistogram]
    now: list[Reading]
