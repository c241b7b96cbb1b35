"""The latest queries and pairs against the calibration: scores, vectors, share of unknown.

Every look spends some of the same small chance of a false alarm (``evaluation.drift.repeated_looks``), so
that watching for years is no reason for one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from time import monotonic
from typing import NamedTuple

from scipy.special import ndtri

from api_schemas.http.monitoring import Reading
from api_schemas.operating_point import OperatingPoint
from common.array_types import Float64s
from evaluation.drift.domain_classifier import measure_domain_shift
from evaluation.drift.repeated_looks import spend_alpha
from evaluation.drift.stability_index import Stability, measure_stability
from service.models.loaded_model import LoadedModel
from service.monitoring.gallery_reference import (
    ScoreReference,
    VectorReference,
    build_pair_reference,
    build_score_reference,
)
from service.monitoring.recorder import QueryWindow, Recorder

ALPHA = 0.01  # chance of a false alarm of one signal, over all looks
MIN_QUERIES = 200
MIN_VECTORS = 40  # of each sample; fewer tell little
LOOK_EVERY = 50  # queries
MIN_BEFORE = 200  # decisions that a share is compared with
TYPICAL_VARIATION = 0.02  # of the share between hours, until enough hours tell
PAIRS = "pair_score_stability"
REFERENCE_SECONDS = 600.0  # between references of a gallery that changes


class ShareBefore(NamedTuple):
    """Share of unknown of earlier decisions; ``variation`` is its standard deviation from hour to hour."""

    n: int
    share: float
    variation: float


class QueryComparison:
    """Readings of the point that decides ``/v1/match``; used by one thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._key: tuple[object, ...] = ()
        self._gallery_key: tuple[object, ...] = ()
        self._referenced = 0.0
        self._reset()

    def _reset(self) -> None:
        self._looks = 0
        self._scores: ScoreReference | None = None
        self._vectors: VectorReference | None = None
        self.mixture: Stability | None = None
        self.readings: dict[str, Reading] = {}

    @property
    def reference(self) -> ScoreReference | None:
        """The scores to expect; None until the first look."""
        return self._scores

    def prepare(self, model: LoadedModel, point: OperatingPoint) -> None:
        """Compute the reference again if the model, the point or the gallery has changed."""
        key = (model.model_hash, point.id)
        if key != self._key:
            self._reset()
            self._key, self._gallery_key = key, ()
        stats = model.gallery.compute_stats()
        gallery = tuple(stats.get(name) for name in ("generation", "sequence", "items"))
        due = self._scores is None or monotonic() - self._referenced >= REFERENCE_SECONDS
        if gallery != self._gallery_key and due:
            self._scores = build_score_reference(model, point)
            self._vectors = VectorReference(model.gallery)
            self._gallery_key, self._referenced = gallery, monotonic()

    def look(
        self, model: LoadedModel, point: OperatingPoint, count_before: Callable[[], ShareBefore | None]
    ) -> bool:
        """Measure again if enough queries have come since; whether it did."""
        window = self._recorder.read_window(point.id) if self._is_due(point) else None
        if window is None:
            if not self.readings:
                self.readings = _wait_for_queries(0)
            return False
        self.prepare(model, point)
        if len(window.scores) < MIN_QUERIES:
            self.readings = _wait_for_queries(len(window.scores))
            return False
        self._looks += 1
        alpha = spend_alpha(ALPHA, self._looks)
        readings = (
            self._compare_scores(window, alpha),
            self._compare_vectors(window, alpha),
            _compare_share(window, count_before(), alpha),
        )
        self.readings = {reading.signal: reading for reading in readings}
        return True

    def _is_due(self, point: OperatingPoint) -> bool:
        return self._key[1:] != (point.id,) or self._recorder.unseen >= LOOK_EVERY

    def _compare_scores(self, window: QueryWindow, alpha: float) -> Reading:
        assert self._scores is not None
        self.mixture, reading = compare_with_reference("score_stability", self._scores, window.scores, alpha)
        return reading.model_copy(update={"detail": reading.detail + self._describe_share()})

    def _describe_share(self) -> str:
        """How many of the latest queries are of unknown classes, where that can be told."""
        if self.mixture is None or self._scores is None or self._scores.mixture is None:
            return ""
        if self._scores.mixture.unknown is None:
            return ""
        share, error = self.mixture.unknown_share, 1.96 * self.mixture.unknown_share_error
        return f" About {share:.0%} ± {error:.0%} of all queries seem to be of no class in the gallery."

    def _compare_vectors(self, window: QueryWindow, alpha: float) -> Reading:
        assert self._vectors is not None
        signal, shift = "query_drift", None
        if window.vectors is not None and len(window.vectors) >= MIN_VECTORS:
            reference, groups, of_queries = self._vectors.select(window.labels)
            if reference.shape[1] == window.vectors.shape[1]:
                shift = measure_domain_shift(
                    reference, window.vectors, groups, of_queries, min_rows=MIN_VECTORS
                )
        if shift is None:
            return Reading(
                signal=signal,
                value=None,
                detail=f"Not measured: it takes {MIN_VECTORS} matched queries and as many items of the same "
                f"classes; {len(window.labels)} of the latest queries were matched.",
            )
        chance = shift.find_limit(0.025)
        return Reading(
            signal=signal,
            value=shift.auc,
            lower=shift.find_lower(alpha),
            n=shift.n,
            detail=f"A classifier tells {shift.n} matched queries from items of the same classes with AUC "
            f"{shift.auc:.2f} (0.5: not at all; chance alone gives up to {chance:.2f}).",
        )


class PairComparison:
    """Scores of the latest pairs that ``/v1/verify`` decided; used by one thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._key: tuple[str, str] = ("", "")
        self._looks = 0
        self._referenced = 0.0
        self.reference: ScoreReference | None = None
        self.reading = _wait_for_pairs("no pair has been decided")

    def look(self, model: LoadedModel, point: OperatingPoint | None) -> Reading:
        """Measure again if enough pairs have come since."""
        if point is None:
            return _wait_for_pairs("no operating point decides /v1/verify")
        key = model.model_hash, point.id
        if key != self._key:
            self._key, self._looks, self.reference = key, 0, None
            self.reading = _wait_for_pairs(f"0 of {MIN_QUERIES} pairs so far")
        elif self._recorder.unseen_pairs < LOOK_EVERY:
            return self.reading
        scores = self._recorder.read_pairs(point.id)
        if len(scores) < MIN_QUERIES:
            self.reading = _wait_for_pairs(f"{len(scores)} of {MIN_QUERIES} pairs so far")
            return self.reading
        if self.reference is None or monotonic() - self._referenced >= REFERENCE_SECONDS:
            self.reference, self._referenced = build_pair_reference(model, point), monotonic()
        self._looks += 1
        _, self.reading = compare_with_reference(
            PAIRS, self.reference, scores, spend_alpha(ALPHA, self._looks)
        )
        return self.reading


def compare_with_reference(
    signal: str, reference: ScoreReference, scores: Float64s, alpha: float
) -> tuple[Stability | None, Reading]:
    """The mixture of known and unknown that explains scores, float64 [n], and how far they are from it."""
    mixture = None if reference.mixture is None else measure_stability(reference.mixture, scores, alpha)
    found = None
    if reference.accepted is not None:
        share = 0.0 if mixture is None else mixture.unknown_share
        found = measure_stability(reference.accepted, scores, alpha, share)
    if found is None:
        why = reference.reason or f"too few of the latest {len(scores)} were near a match"
        return mixture, Reading(signal=signal, value=None, detail=f"Not measured: {why}.")
    return mixture, Reading(
        signal=signal,
        value=found.psi,
        lower=max(0.0, found.psi - found.noise),
        n=found.n,
        detail=f"Population stability index {found.psi:.2f} of the scores of the last {found.n} matches "
        f"and near matches against the calibration (chance alone gives up to {found.noise:.2f}).",
    )


def _compare_share(window: QueryWindow, before: ShareBefore | None, alpha: float) -> Reading:
    n = len(window.scores)
    share = window.unknown / n
    if before is None or before.n < MIN_BEFORE:
        return Reading(
            signal="unknown_share_change",
            value=None,
            n=n,
            detail=f"{share:.0%} of the last {n} decisions were unknown; there are too few earlier ones to "
            f"compare with ({MIN_BEFORE} are needed).",
        )
    pooled = (window.unknown + before.share * before.n + 1) / (n + before.n + 2)
    error = sqrt(pooled * (1 - pooled) * (1 / n + 1 / before.n) + before.variation**2)
    change = abs(share - before.share)
    return Reading(
        signal="unknown_share_change",
        value=change,
        lower=max(0.0, change - float(-ndtri(alpha / 2)) * error),
        n=n,
        detail=f"{share:.0%} of the last {n} decisions were unknown, {before.share:.0%} of {before.n} "
        "before.",
    )


def _wait_for_queries(n: int) -> dict[str, Reading]:
    detail = f"Not measured: {n} of {MIN_QUERIES} queries so far."
    names = ("score_stability", "query_drift", "unknown_share_change")
    return {name: Reading(signal=name, value=None, n=n, detail=detail) for name in names}


def _wait_for_pairs(why: str) -> Reading:
    return Reading(signal=PAIRS, value=None, detail=f"Not measured: {why}.")
