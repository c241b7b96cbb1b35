"""``report.json``: retrieval, verification, identification and threshold consistency of a set of embeddings.

Every figure is defined in docs/specification.md, section Report.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api_schemas.base import SCHEMA_VERSION, Finite, Schema
from api_schemas.operating_point import (
    Aggregate,
    ClassRates,
    GallerySize,
    Interval,
    OperatingPointConsistency,
    Score,
    Status,
)
from api_schemas.tradeoff import Tradeoff

REPORT_VERSION: Literal[2] = 2
DistanceKind = Literal["similarity", "cosine", "l2"]


class Counts(Schema):
    """Sizes of the data. ``classes_scored`` are the classes of at least two items.

    ``queries_without_partner`` are queries whose class has no other item; retrieval means leave them out.
    """

    items: int
    classes: int
    classes_scored: int
    queries_without_partner: int
    genuine_pairs: int
    impostor_pairs: int


class Retrieval(Schema):
    """Retrieval: each item queries all others, ranked by similarity; means over queries with a partner."""

    recall_at_1: Finite | None
    recall_at_2: Finite | None
    recall_at_4: Finite | None
    recall_at_8: Finite | None
    recall_at_10: Finite | None
    r_precision: Finite | None
    map_at_r: Finite | None


class VerificationCurve(Schema):
    """FAR and FRR over all pairs at descending thresholds; the three lists have equal lengths."""

    threshold: list[Finite]
    far: list[Finite]
    frr: list[Finite]


class Verification(Schema):
    """Verification, 1:1, over all pairs. ``tar_at_far``: the best TAR at a FAR of at most the key."""

    eer: Finite | None
    eer_threshold: Finite | None
    auc: Finite | None
    tar_at_far: dict[str, Finite | None]
    curve: VerificationCurve | None


class FpirByGallery(Schema):
    """FPIR of a threshold in a gallery of another size; ``fpir_upper`` is its upper bound."""

    classes: int
    items: int
    fpir: Finite
    fpir_upper: Finite


class Identification(Schema):
    """Identification, 1:N, with unknown queries (their class is not in the gallery).

    ``fnir_at_fpir``: fraction of known queries with no match or a wrong one, at an FPIR of at most the key.
    ``fpir_by_gallery``: FPIR of the operating point's threshold, or of the audited one, as a gallery grows.
    """

    gallery: GallerySize
    unknown_queries: int
    fnir_at_fpir: dict[str, Finite | None]
    auroc: Finite | None
    fpir_by_gallery: list[FpirByGallery] = Field(default_factory=list)


class CalibrationRange(Schema):
    """The range of thresholds of OPIS: as pooled FAR, as distance (for `cosine` alone) and as score."""

    far: tuple[Finite, Finite]
    distance: tuple[Finite, Finite] | None
    score: tuple[Finite, Finite]


class UtilityBand(Schema):
    """The 5th and 95th percentile of the class utilities at each threshold."""

    p05: list[Finite]
    p95: list[Finite]


class ClassConsistency(ClassRates):
    """One class: means of FAR, FRR and utility over the calibration range, and its contribution to OPIS."""

    contribution: Finite | None


class Consistency(OperatingPointConsistency):
    """OPIS: how much classes differ at one threshold, the variance of their utilities (arXiv 2307.04047)."""

    epsilon_opis: dict[str, Finite | None]
    epsilon_variant: Literal["best-worst", "worst-mean"] = "best-worst"
    calibration_range: CalibrationRange | None
    c: Finite = 1.0
    grid: int = Field(default=101, ge=2)
    thresholds: list[Finite]
    mean_utility: list[Finite]
    band: UtilityBand
    per_class: list[ClassConsistency]


class ClassMeans(Schema):
    """Lengths and angles of the class means of unit vectors (neural collapse, Papyan et al. 2020).

    ``length`` is 1 where all items of a class coincide. Angles, in degrees, are between class means as seen
    from the mean of them all: ``angle`` of any two, ``nearest_angle`` to each class's nearest other one,
    ``even_angle`` that of means which are all equally far apart. ``length_variation``: standard deviation of
    the distances of class means to the mean of all, over their mean. ``*_p05`` and ``*_p95`` are percentiles
    over classes.
    """

    length: Finite
    length_p05: Finite
    length_p95: Finite
    length_variation: Finite
    angle: Finite
    nearest_angle: Finite
    nearest_angle_p05: Finite
    nearest_angle_p95: Finite
    even_angle: Finite


class Geometry(Schema):
    """Geometry of the vectors: alignment, uniformity (Wang & Isola 2020), tolerance (Wang & Liu 2021)."""

    alignment: Finite | None
    uniformity: Finite | None
    tolerance: Finite | None
    class_means: ClassMeans | None = Field(default=None, exclude_if=lambda means: means is None)


class ThresholdRates(Schema):
    """Rates of one threshold, each with its interval from resampling classes; null where nothing is counted.

    ``far`` and ``frr`` are over pairs, ``fpir`` and ``fnir`` over queries against the gallery.
    """

    far: Finite | None
    far_ci: Interval | None
    frr: Finite | None
    frr_ci: Interval | None
    fpir: Finite | None
    fpir_ci: Interval | None
    fnir: Finite | None
    fnir_ci: Interval | None


class GroupRates(ThresholdRates):
    """Rates of the items that share a value of a column, at one threshold.

    Pairs have both ends in the group (against a gallery: the query), queries are the group's and meet the
    whole gallery. ``opis`` is over the group's own classes, debiased where these have enough items.
    ``reason`` says why figures are missing.
    """

    column: str
    value: str
    n_items: int
    n_classes: int
    threshold: Finite
    opis: Finite | None
    opis_ci: Interval | None
    reason: str | None


class InsteadThreshold(Schema):
    """A threshold that would keep a target, in the unit of the audit, and what it would do."""

    target: Finite
    threshold: Finite
    similarity: Finite
    status: Status
    rate: Finite | None
    rate_upper: Finite | None
    missed: Finite | None


class Audit(ThresholdRates):
    """What a threshold that was chosen elsewhere does on this data.

    ``threshold`` is in the unit of ``distance``, ``similarity`` the same as a cosine similarity, which is
    accepted from there on. ``worst``: the classes with the least utility at this threshold. ``instead``: by
    ``far_1`` and ``fpir_1`` the thresholds that would keep FAR 1 % and FPIR 1 %; null where the data cannot
    say. ``unknown_queries``: how many queries the FPIR is counted on.
    """

    threshold: Finite
    distance: DistanceKind
    similarity: Finite
    aggregate: Aggregate
    confidence: Finite
    unknown_queries: int
    worst: list[ClassRates]
    groups: list[GroupRates]
    instead: dict[str, InsteadThreshold | None]


class AnswerReliability(Schema):
    """Reliability diagram of bins of equal weight.

    ``predicted`` and ``observed``: mean probability and fraction of right answers; ``share`` the weight.
    """

    predicted: list[Finite]
    observed: list[Finite]
    share: list[Finite]


class AnswerFigures(Schema):
    """How true an operating point's probability that its answer is right is, on classes it was not fitted on.

    Where there are no such classes it is fitted again on each half of the classes and measured on the other.
    ``ece``: weighted mean gap between predicted and observed; ``log_loss`` in nats; at ``unknown_share`` of
    unknown queries in a gallery of ``classes``.
    """

    operating_point: str
    classes: int
    unknown_share: Finite
    ece: Finite
    log_loss: Finite
    reliability: AnswerReliability


class Measurement(Schema):
    """Origin of a report or a diagnosis."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    created_at: datetime
    model_hash: str
    data_hash: str
    split: str
    score: Score
    reasons: list[str]


class Difference(Schema):
    """One figure of two models on the same items. ``interval``: two-sided 95 % of b - a, by paired
    resampling of classes."""

    name: str
    a: Finite | None
    b: Finite | None
    difference: Finite | None
    interval: tuple[Finite, Finite] | None
    higher_is_better: bool


class ClassesAtThreshold(Schema):
    """Every class at the threshold that decided 1:1 when the report was made."""

    threshold: Finite
    per_class: list[ClassRates]


class Report(Measurement):
    """The report. A figure that the data cannot give is null, and a sentence in ``reasons`` says why.

    ``audit`` is of a threshold chosen elsewhere, ``groups`` of the columns asked for, ``answer`` of an
    operating point's probability that its answers are right, ``tradeoffs`` of every threshold that an
    endpoint could have. ``at_threshold`` is there in reports of a gallery, ``beside_teacher`` (the teacher a,
    the student b) in those of a run that followed one.
    """

    schema_version: Literal[1, 2] = REPORT_VERSION
    counts: Counts
    retrieval: Retrieval
    verification: Verification
    identification: Identification | None
    consistency: Consistency
    geometry: Geometry
    audit: Audit | None = None
    at_threshold: ClassesAtThreshold | None = Field(default=None, exclude_if=lambda found: found is None)
    groups: list[GroupRates] = Field(default_factory=list)
    answer: AnswerFigures | None = None
    tradeoffs: list[Tradeoff] = Field(default_factory=list, exclude_if=lambda tradeoffs: not tradeoffs)
    beside_teacher: list[Difference] = Field(default_factory=list, exclude_if=lambda rows: not rows)
