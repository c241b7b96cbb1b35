"""The Prometheus metrics ``limen_*`` of one or several worker processes.

With ``PROMETHEUS_MULTIPROC_DIR``, which `service.server` sets for several workers, every process writes its
values to that folder, and any of them answers for all.

What a gallery does has the label ``gallery``. Its values are names of the configuration, never of a request:
there are as many as galleries.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache, partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGE_NAMES = ("parse", "search", "rescore", "serialize")
_SCORES = tuple(step / 20 for step in range(-4, 21))

# how the values of several worker processes make one
_LatestGauge = partial(Gauge, multiprocess_mode="mostrecent")
_SummedGauge = partial(Gauge, multiprocess_mode="livesum")
_LowestGauge = partial(Gauge, multiprocess_mode="min")
_HighestGauge = partial(Gauge, multiprocess_mode="max")

REQUESTS = Counter("limen_http_requests", "Answered requests.", ["gallery", "route", "code"])
DURATION = Histogram(
    "limen_http_request_duration_seconds", "From first byte in to last byte out.", ["route"], buckets=_FAST
)
STAGES = Histogram("limen_search_duration_seconds", "Time of one request by stage.", ["stage"], buckets=_FAST)
ENCODED = Histogram(
    "limen_encoded_inputs", "Inputs encoded together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 1000)
)
CONNECTIONS = _SummedGauge("limen_open_connections", "Open connections of clients.")
INFLIGHT = _SummedGauge("limen_inflight_requests", "Requests in progress.")
QUEUED = _SummedGauge("limen_queued_requests", "Requests waiting for a thread.")
REJECTED = Counter("limen_rejected", "Requests answered with an error, by reason.", ["reason"])
DECISIONS = Counter("limen_decisions", "Decisions made.", ["gallery", "operating_point", "decision"])
KEPT_QUERIES = Counter(
    "limen_kept_queries", "Queries for the pool of unknowns, by what became of them.", ["gallery", "outcome"]
)
TOP1 = Histogram("limen_top1_score", "Score of the best candidate.", ["gallery"], buckets=_SCORES)
MARGIN = Histogram(
    "limen_margin_top1_top2", "Best score minus the best of another label.", ["gallery"], buckets=_SCORES
)
THRESHOLD = _LatestGauge(
    "limen_threshold", "Threshold of an active operating point.", ["gallery", "endpoint"]
)
ROWS = _LatestGauge("limen_index_rows", "Rows of the index by state.", ["gallery", "state"])
UNREACHABLE = _LatestGauge(
    "limen_index_unreachable_rows", "Rows that only exact comparison finds.", ["gallery"]
)
DUPLICATES = _LatestGauge(
    "limen_index_duplicate_groups", "Distinct vectors that more than one row has.", ["gallery"]
)
DRIFT = _LatestGauge(
    "limen_embedding_drift_auc",
    "AUC of a classifier of matched queries against the gallery's items: 0.5 no drift; NaN for too few.",
    ["gallery"],
)
ALERT = _HighestGauge("limen_alert", "1 while the alert of a rule fires, else 0.", ["gallery", "rule"])
READING = _LatestGauge(
    "limen_monitor_reading", "What alert rules are about, by signal.", ["gallery", "signal"]
)
WEBHOOK = Counter("limen_webhook_deliveries", "Alerts sent to the webhook, by outcome.", ["outcome"])
FLUSH_FAILED = _HighestGauge(
    "limen_monitor_flush_failed", "1 if time series could not be saved, else 0.", ["gallery"]
)
SELF_RECALL = _LowestGauge(
    "limen_self_recall_ratio", "Fraction of probed rows that found themselves.", ["gallery"]
)
RECALL_PROBE = _LowestGauge(
    "limen_recall_probe_ratio", "Recall@10 of the index on sampled rows.", ["gallery"]
)
GENERATION = _LatestGauge(
    "limen_index_generation", "Writes that the current index was built from.", ["gallery"]
)
REBUILD_FAILED = _LatestGauge(
    "limen_index_rebuild_failed", "1 if the last background rebuild of the index failed, else 0.", ["gallery"]
)
WAL_BYTES = _LatestGauge("limen_wal_bytes", "Size of the item store's write-ahead log.", ["gallery"])
LAST_FSYNC = _LatestGauge(
    "limen_last_fsync_timestamp_seconds", "Time of the last write to disk.", ["gallery"]
)
LAST_SNAPSHOT = _LatestGauge(
    "limen_last_snapshot_timestamp_seconds", "Time the current index was built.", ["gallery"]
)
LAG_CHANGES = _HighestGauge(
    "limen_replica_lag_changes", "Changes of other processes that are known and not shown yet.", ["gallery"]
)
LAG_SECONDS = _HighestGauge(
    "limen_replica_lag_seconds",
    "Time since all that other processes have written was last shown.",
    ["gallery"],
)
LOAD_SECONDS = _HighestGauge(
    "limen_index_load_seconds", "Time from opening the bundle to ready.", ["gallery"]
)
RESIDENT = _SummedGauge("limen_resident_memory_bytes", "Resident memory of the processes.")


def count_rejection(slug: str) -> None:
    """Count a request that was answered with a problem, by the problem's slug."""
    reason = {
        "overloaded": "overload",
        "deadline-exceeded": "overload",
        "unauthenticated": "auth",
        "forbidden": "auth",
        "body-too-large": "quota",
        "limit-exceeded": "quota",
        "rate-limited": "quota",
    }.get(slug, "invalid")
    REJECTED.labels(reason).inc()


def write_metrics(gallery: str | None = None) -> bytes:
    """All metrics in Prometheus' text format, or those of one gallery."""
    RESIDENT.set(_measure_resident_bytes())
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    if gallery is None:
        return generate_latest(registry)
    chosen = CollectorRegistry()
    chosen.register(_OfGallery(registry, gallery))
    return generate_latest(chosen)


class _OfGallery(Collector):
    """The samples of a registry that are of one gallery."""

    def __init__(self, registry: CollectorRegistry, gallery: str) -> None:
        self._registry, self._gallery = registry, gallery

    def describe(self) -> Iterable[Metric]:
        return ()  # the names are those of the registry, which are known to be unique

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            samples = [sample for sample in family.samples if sample.labels.get("gallery") == self._gallery]
            if samples:
                chosen = Metric(family.name, family.documentation, family.type)
                chosen.samples = samples
                yield chosen


def _measure_resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def observe_stages(*, parse: float, search: float, rescore: float, serialize: float) -> None:
    """Record the durations of the stages of one request, in seconds; ``search`` includes ``rescore``."""
    for stage, seconds in zip(STAGE_NAMES, (parse, search - rescore, rescore, serialize), strict=True):
        _get_stage_histogram(stage).observe(seconds)


def observe_response(gallery: str, route: str, code: int, seconds: float) -> None:
    """Record one answered request."""
    _get_request_counter(gallery, route, code).inc()
    _get_duration_histogram(route).observe(seconds)


def count_decision(gallery: str, operating_point: str, decision: str) -> None:
    """Count one decision."""
    _get_decision_counter(gallery, operating_point, decision).inc()


def observe_scores(gallery: str, scores: Iterable[float | None], margins: Iterable[float | None]) -> None:
    """Record the scores of the best candidates of matches, and their margins, where there are any."""
    for histogram, values in zip(_get_score_histograms(gallery), (scores, margins), strict=True):
        for value in values:
            if value is not None:
                histogram.observe(value)


# cached: looking up a labelled metric takes longer than counting with it
@lru_cache(maxsize=1024)
def _get_request_counter(gallery: str, route: str, code: int) -> Counter:
    return REQUESTS.labels(gallery, route, code)


@lru_cache(maxsize=256)
def _get_duration_histogram(route: str) -> Histogram:
    return DURATION.labels(route)


@lru_cache(maxsize=16)
def _get_stage_histogram(stage: str) -> Histogram:
    return STAGES.labels(stage)


@lru_cache(maxsize=1024)
def _get_decision_counter(gallery: str, operating_point: str, decision: str) -> Counter:
    return DECISIONS.labels(gallery, operating_point, decision)


@lru_cache(maxsize=256)
def _get_score_histograms(gallery: str) -> tuple[Histogram, Histogram]:
    return TOP1.labels(gallery), MARGIN.labels(gallery)
