"""What alert rules are about: a registry of signals, each a function from the state now to a reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from api_schemas.http.gallery import Feedback
from api_schemas.http.monitoring import Reading
from api_schemas.operating_point import OperatingPoint
from common.array_types import UnitVectors
from decision.decider import BEYOND_PROOF
from evaluation.drift.domain_classifier import measure_domain_shift
from service.models.loaded_model import LoadedModel
from service.models.recomputed_reports import measure_feedback_consistency
from service.monitoring.documents import Document
from service.monitoring.recorder import compute_quantile

CONFIDENCE = 0.95
MIN_CLASSES = 60  # written since the bundle was made, and of the bundle
MIN_DECISIONS = 50
DECIDING_ROUTES = ("/v1/match", "/v1/verify", "/v1/search")


@dataclass(frozen=True, eq=False)
class Moment:
    """What signals are measured on.

    Attributes:
        model: that answers now.
        queries: readings of the latest queries, by signal.
        recent: the counts of the last five minutes, by kind.
        feedback: all verdicts there are.
        pairs: the latest pairs of ``/v1/verify`` against the calibration.
        opis: how much classes differ by these verdicts.
        unsaved: why the time series could not be saved the last time, if so.
    """

    model: LoadedModel
    queries: Mapping[str, Reading]
    recent: Mapping[str, Document]
    feedback: Sequence[Feedback]
    pairs: Reading
    opis: Reading
    gallery: Reading
    unsaved: str | None


Signal = Callable[[Moment], Reading]


def _take(name: str) -> Signal:
    def read(moment: Moment) -> Reading:
        nothing = Reading(
            signal=name, value=None, detail="Not measured: no operating point decides /v1/match."
        )
        return moment.queries.get(name, nothing)

    return read


def measure_gallery_drift(
    written: UnitVectors,
    labels: Sequence[str],
    bundled: UnitVectors,
    bundled_labels: Sequence[str],
    alpha: float,
) -> Reading:
    """The drift of items written since from those of the bundle.

    A class counts once in each sample, by the mean of its vectors: more items of one are no drift.
    """
    signal = "gallery_drift"
    new, old = _average(written, labels), _average(bundled, bundled_labels)
    shift = measure_domain_shift(old, new, min_rows=MIN_CLASSES) if len(new) and len(old) else None
    if shift is None:
        return Reading(
            signal=signal,
            value=None,
            n=len(new),
            detail=f"Not measured: items of {len(new)} classes were written since the bundle was made, "
            f"{MIN_CLASSES} are needed, and as many in the bundle.",
        )
    return Reading(
        signal=signal,
        value=shift.auc,
        lower=shift.find_lower(alpha),
        n=shift.n,
        detail=f"A classifier tells {shift.n} classes written since from as many of the bundle with AUC "
        f"{shift.auc:.2f} (0.5: not at all).",
    )


def _average(vectors: UnitVectors, labels: Sequence[str]) -> UnitVectors:
    if not len(vectors):
        return vectors
    names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, codes, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(lengths, 1e-12), dtype=np.float32)


def _measure_feedback(moment: Moment) -> Reading:
    """The larger excess of a false-match rate over its target, of both endpoints."""
    signal = "feedback_rate"
    readings = [
        reading
        for point in (moment.model.active_match, moment.model.active_verify)
        if point is not None
        for reading in [_compare_feedback(point, moment.feedback)]
        if reading is not None
    ]
    if not readings:
        return Reading(
            signal=signal,
            value=None,
            detail="Not measured: no feedback on decisions of an active point with a FAR or FPIR target.",
        )
    return max(readings, key=lambda reading: reading.lower or 0.0)


def _compare_feedback(point: OperatingPoint, feedback: Sequence[Feedback]) -> Reading | None:
    if point.target.kind not in {"far", "fpir"} or point.target.value is None:
        return None
    judged = [entry for entry in feedback if entry.operating_point == point.id and not entry.same]
    if not judged:
        return None
    false = sum(entry.decision == "match" for entry in judged)
    low, high = bound_rate(false, len(judged))
    rate, target = false / len(judged), point.target.value
    return Reading(
        signal="feedback_rate",
        value=rate - target,
        lower=low - target,
        n=len(judged),
        detail=f"Of {len(judged)} judged queries and pairs that are not the same, {false} were accepted by "
        f"'{point.name[:60]}': {rate:.1%}, {CONFIDENCE:.0%} interval {low:.1%} to {high:.1%}; the target is "
        f"{target:.2%}.",
    )


def bound_rate(hits: int, n: int) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) of a rate."""
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def _rate_feedback(signal: str, same: bool, rejected: bool) -> Signal:
    """The share of judged decisions of the active points that went wrong one way."""

    def measure(moment: Moment) -> Reading:
        active = (moment.model.active_match, moment.model.active_verify)
        points = {point.id for point in active if point is not None}
        judged = [
            entry for entry in moment.feedback if entry.operating_point in points and entry.same is same
        ]
        if not judged:
            return Reading(signal=signal, value=None, n=0, detail="Not measured: no feedback of this kind.")
        wrong = sum((entry.decision != "match") is rejected for entry in judged)
        low, high = bound_rate(wrong, len(judged))
        kind = "the same, were rejected" if same else "not the same, were accepted"
        return Reading(
            signal=signal,
            value=wrong / len(judged),
            lower=low,
            upper=high,
            n=len(judged),
            detail=f"{wrong} of {len(judged)} that were judged, and are {kind}: {wrong / len(judged):.1%}, "
            f"{CONFIDENCE:.0%} interval {low:.1%} to {high:.1%}.",
        )

    return measure


def measure_feedback_opis(model: LoadedModel, feedback: Sequence[Feedback]) -> Reading:
    """OPIS of judged pairs, debiased, with its interval; takes a while, so it is not done at every turn."""
    consistency, why = measure_feedback_consistency(model, feedback)
    value, interval = consistency.opis_debiased, consistency.opis_ci
    if value is None or interval is None:
        return Reading(signal="feedback_opis", value=None, detail=f"Not measured: {why[0]}")
    return Reading(
        signal="feedback_opis",
        value=value,
        lower=interval[0],
        upper=interval[1],
        n=sum(row.n_items for row in consistency.per_class),
        detail=f"OPIS {value:.2g} by the judged pairs of {len(consistency.per_class)} classes, 95 % interval "
        f"{interval[0]:.2g} to {interval[1]:.2g}.",
    )


def _measure_beyond_proof(moment: Moment) -> Reading:
    point = moment.model.active_match
    proven = None if point is None else point.target.gallery
    if point is None or proven is None:
        return Reading(signal="beyond_proof", value=None, detail="Not measured: no point has a proven size.")
    items = moment.model.gallery.n_items
    return Reading(
        signal="beyond_proof",
        value=items / proven.items,
        n=items,
        detail=f"The gallery has {items} items, {items / proven.items:.2f} times the {proven.items} that "
        f"'{point.name[:60]}' is proven for; the proof reaches to {BEYOND_PROOF:g} times.",
    )


def _measure_rebuild(moment: Moment) -> Reading:
    failed = moment.model.rebuild_error is not None
    detail = "The last rebuild failed; /v1/info says why." if failed else "No rebuild has failed."
    return Reading(signal="rebuild_failed", value=float(failed), detail=detail)


def _measure_latency(moment: Moment) -> Reading:
    routes = moment.recent.get("http", {})
    found = [routes[route]["seconds"] for route in DECIDING_ROUTES if route in routes]
    counts = [sum(column) for column in zip(*found, strict=True)]
    n = sum(counts)
    if n < MIN_DECISIONS:
        return Reading(
            signal="latency_p99",
            value=None,
            n=n,
            detail=f"Not measured: {n} decisions and searches in five minutes, {MIN_DECISIONS} are needed.",
        )
    seconds = compute_quantile(counts, 0.99)
    return Reading(
        signal="latency_p99",
        value=seconds,
        n=n,
        detail=f"99 of 100 of the last {n} decisions and searches took at most {1000 * seconds:.3g} ms.",
    )


def _measure_errors(moment: Moment) -> Reading:
    routes = moment.recent.get("http", {}).values()
    n, failed = sum(route["n"] for route in routes), sum(route["failed"] for route in routes)
    if not n:
        return Reading(signal="error_share", value=None, n=0, detail="No request in five minutes.")
    return Reading(
        signal="error_share",
        value=failed / n,
        lower=bound_rate(failed, n)[0],
        n=n,
        detail=f"{failed} of {n} requests of the last five minutes failed with an error of the service.",
    )


def _measure_writes(moment: Moment) -> Reading:
    failed = sum(route["write_failed"] for route in moment.recent.get("http", {}).values())
    value = float(failed + (moment.unsaved is not None))
    detail = f"{failed} writes failed in five minutes" if failed else "No write failed in five minutes"
    return Reading(
        signal="writes_failing",
        value=value,
        detail=f"{detail}." if moment.unsaved is None else f"{detail}; the time series are not saved either.",
    )


SIGNALS: dict[str, Signal] = {
    "score_stability": _take("score_stability"),
    "query_drift": _take("query_drift"),
    "pair_score_stability": lambda moment: moment.pairs,
    "unknown_share_change": _take("unknown_share_change"),
    "gallery_drift": lambda moment: moment.gallery,
    "feedback_rate": _measure_feedback,
    "feedback_false_matches": _rate_feedback("feedback_false_matches", same=False, rejected=False),
    "feedback_misses": _rate_feedback("feedback_misses", same=True, rejected=True),
    "feedback_opis": lambda moment: moment.opis,
    "beyond_proof": _measure_beyond_proof,
    "rebuild_failed": _measure_rebuild,
    "latency_p99": _measure_latency,
    "error_share": _measure_errors,
    "writes_failing": _measure_writes,
}
