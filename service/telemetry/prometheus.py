"""What Prometheus can ask: names ``limen_*``, seconds and totals, safe with several worker processes.

With ``PROMETHEUS_MULTIPROC_DIR`` set, which `service.server` does for more than one worker, every
process writes its share to that folder and any of them answers for all.
"""

from __future__ import annotations

import os
from functools import lru_cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGE_NAMES = ("parse", "search", "rescore", "serialize")
_SCORES = tuple(step / 20 for step in range(-4, 21))

REQUESTS = Counter("limen_http_requests", "Answered requests.", ["route", "code"])
DURATION = Histogram(
    "limen_http_request_duration_seconds", "From first byte in to last byte out.", ["route"], buckets=_FAST
)
STAGES = Histogram("limen_search_duration_seconds", "One request's time by stage.", ["stage"], buckets=_FAST)
ENCODED = Histogram(
    "limen_encoded_inputs", "Inputs encoded together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 1000)
)
INFLIGHT = Gauge("limen_inflight_requests", "Requests being worked on.", multiprocess_mode="livesum")
QUEUED = Gauge("limen_queued_requests", "Requests waiting for their turn.", multiprocess_mode="livesum")
REJECTED = Counter("limen_rejected", "Requests turned away.", ["reason"])
DECISIONS = Counter("limen_decisions", "Decisions made.", ["operating_point", "decision"])
TOP1 = Histogram("limen_top1_score", "Score of the best candidate.", buckets=_SCORES)
MARGIN = Histogram("limen_margin_top1_top2", "Best score minus the best of another label.", buckets=_SCORES)
THRESHOLD = Gauge(
    "limen_threshold", "Threshold of an active operating point.", ["endpoint"], multiprocess_mode="mostrecent"
)
ROWS = Gauge("limen_index_rows", "Rows of the index by state.", ["state"], multiprocess_mode="mostrecent")
UNREACHABLE = Gauge(
    "limen_index_unreachable_rows", "Rows the engine alone does not find.", multiprocess_mode="mostrecent"
)
DUPLICATES = Gauge(
    "limen_index_duplicate_groups", "Vectors that more than one row has.", multiprocess_mode="mostrecent"
)
DRIFT = Gauge(
    "limen_embedding_drift_auc",
    "How well recent queries can be told from the gallery: 0.5 not at all, 1 always; NaN for too few.",
    multiprocess_mode="mostrecent",
)
SELF_RECALL = Gauge("limen_self_recall_ratio", "Probed rows that found themselves.", multiprocess_mode="min")
RECALL_PROBE = Gauge(
    "limen_recall_probe_ratio", "Neighbours of sampled rows that the index finds.", multiprocess_mode="min"
)
GENERATION = Gauge(
    "limen_index_generation", "Writes that the present index was built from.", multiprocess_mode="mostrecent"
)
WAL_BYTES = Gauge("limen_wal_bytes", "The item store's write-ahead log.", multiprocess_mode="mostrecent")
LAST_FSYNC = Gauge(
    "limen_last_fsync_timestamp_seconds", "When a write was last put on disk.", multiprocess_mode="mostrecent"
)
LAST_SNAPSHOT = Gauge(
    "limen_last_snapshot_timestamp_seconds",
    "When the present index was built.",
    multiprocess_mode="mostrecent",
)
LOAD_SECONDS = Gauge("limen_index_load_seconds", "From opening the bundle to ready.", multiprocess_mode="max")
RESIDENT = Gauge("limen_resident_memory_bytes", "Memory the process holds.", multiprocess_mode="livesum")


def rejected(slug: str) -> None:
    """Count a request that was turned away, by the slug of its problem."""
    reason = {
        "overloaded": "overload",
        "deadline-exceeded": "overload",
        "unauthenticated": "auth",
        "forbidden": "auth",
        "body-too-large": "quota",
        "limit-exceeded": "quota",
    }.get(slug, "invalid")
    REJECTED.labels(reason).inc()


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    RESIDENT.set(_resident_bytes())
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(REGISTRY)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def observe_stages(*, parse: float, search: float, rescore: float, serialize: float) -> None:
    """Record how long the stages of one request took, in seconds; ``search`` includes ``rescore``."""
    for stage, seconds in zip(STAGE_NAMES, (parse, search - rescore, rescore, serialize), strict=True):
        _stage(stage).observe(seconds)


def answered(route: str, code: int, seconds: float) -> None:
    """Record one answered request."""
    _requests(route, code).inc()
    _duration(route).observe(seconds)


def decided(operating_point: str, decision: str) -> None:
    """Count one decision."""
    _decisions(operating_point, decision).inc()


# looking a labelled metric up takes longer than counting with it
@lru_cache(maxsize=1024)
def _requests(route: str, code: int) -> Counter:
    return REQUESTS.labels(route, code)


@lru_cache(maxsize=256)
def _duration(route: str) -> Histogram:
    return DURATION.labels(route)


@lru_cache(maxsize=16)
def _stage(stage: str) -> Histogram:
    return STAGES.labels(stage)


@lru_cache(maxsize=256)
def _decisions(operating_point: str, decision: str) -> Counter:
    return DECISIONS.labels(operating_point, decision)
