"""Time series as ``/v1/monitoring`` answers them: from documents of counts to lists, one value a period."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from api_schemas.http.monitoring import (
    Latency,
    Monitoring,
    Requests,
    ScoreHistogram,
    SeriesOfOutcomes,
    Step,
)
from service.models.loaded_model import LoadedModel
from service.monitoring.documents import Document, add_document
from service.monitoring.monitor import Monitor
from service.monitoring.recorder import compute_quantile
from service.monitoring.score_bins import list_edges
from service.monitoring.series import DAY, HOUR, MINUTE
from service.monitoring.signals import DECIDING_ROUTES, SIGNALS

SECONDS_OF_STEP: dict[Step, int] = {"minute": MINUTE, "hour": HOUR, "day": DAY}
MINUTES_UNTIL, HOURS_UNTIL = 6 * HOUR, 14 * DAY  # ranges that are shown by the minute, by the hour


def choose_step(seconds: float) -> Step:
    """The step that shows a range in some hundred periods."""
    return "minute" if seconds <= MINUTES_UNTIL else "hour" if seconds <= HOURS_UNTIL else "day"


def list_starts(step: Step, now: float, seconds: float) -> range:
    """The starts of the periods of a range that ends with the present one."""
    size = SECONDS_OF_STEP[step]
    return range(int(now - seconds) // size * size + size, int(now) + 1, size)


def describe_series(
    monitor: Monitor, model: LoadedModel, step: Step, starts: range, workers: int
) -> Monitoring:
    """The series of these periods; reads the database."""
    found = monitor.series.read(SECONDS_OF_STEP[step], starts.start, starts.stop)
    periods: list[Mapping[str, Document]] = [found.get(start, {}) for start in starts]
    return Monitoring(
        kept="database" if monitor.is_kept else "memory",
        workers=workers,
        model_hash=model.model_hash,
        step=step,
        times=[datetime.fromtimestamp(start, UTC) for start in starts],
        match=_count_outcomes(periods, "match"),
        verify=_count_outcomes(periods, "verify"),
        latency=_compute_latency(periods),
        requests=_count_requests(periods),
        measurements={
            name: [period.get("readings", {}).get(name, {}).get("max") for period in periods]
            for name in SIGNALS
        },
        scores=_build_histograms(monitor, model, periods),
        now=monitor.readings,
    )


def _count_outcomes(periods: list[Mapping[str, Document]], endpoint: str) -> SeriesOfOutcomes:
    points = [period.get("decisions", {}).get(endpoint, {}).values() for period in periods]
    return SeriesOfOutcomes(
        decisions=[sum(counts["n"] for counts in of_period) for of_period in points],
        unknown=[sum(counts["unknown"] for counts in of_period) for of_period in points],
    )


def _compute_latency(periods: list[Mapping[str, Document]]) -> Latency:
    quantiles: dict[str, list[float | None]] = {"p50": [], "p95": [], "p99": []}
    for period in periods:
        routes = period.get("http", {})
        found = [routes[route]["seconds"] for route in DECIDING_ROUTES if route in routes]
        counts = [sum(column) for column in zip(*found, strict=True)]
        for name, values in quantiles.items():
            share = int(name[1:]) / 100
            values.append(1000 * compute_quantile(counts, share) if sum(counts) else None)
    return Latency(**quantiles)


def _count_requests(periods: list[Mapping[str, Document]]) -> Requests:
    routes = [period.get("http", {}).values() for period in periods]
    return Requests(
        answered=[sum(route["n"] for route in of_period) for of_period in routes],
        failed=[sum(route["failed"] for route in of_period) for of_period in routes],
        refused=[sum(route["refused"] for route in of_period) for of_period in routes],
    )


def _build_histograms(
    monitor: Monitor, model: LoadedModel, periods: list[Mapping[str, Document]]
) -> list[ScoreHistogram]:
    """One histogram of each point that decided and that the model still has."""
    total: dict[str, Any] = {}
    for period in periods:
        add_document(total, period.get("decisions", {}))
    histograms = []
    for endpoint in ("match", "verify"):
        for point_id, counts in total.get(endpoint, {}).items():
            point = model.points.get(point_id)
            if point is None:
                continue
            expected = None
            comparison, active = (
                (monitor.queries, model.active_match)
                if endpoint == "match"
                else (monitor.pairs, model.active_verify)
            )
            reference, is_compared = comparison.reference, point is active
            if is_compared and reference is not None and reference.mixture and any(counts["scores"]):
                expected = reference.predict(np.array(counts["scores"], dtype=np.float64)).round(3).tolist()
            histograms.append(
                ScoreHistogram(
                    endpoint="match" if endpoint == "match" else "verify",
                    operating_point=point.id,
                    name=point.name,
                    threshold=point.threshold,
                    edges=list_edges(point.score),
                    counts=counts["scores"],
                    expected=expected,
                )
            )
    return sorted(histograms, key=lambda histogram: -float(np.sum(histogram.counts)))
