"""``report.json``: retrieval, verification, identification and threshold consistency of a set of embeddings.

Every figure is defined in docs/specification.md, section Report.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api_schemas.base import SCHEMA_VERSION, Finite, Schema
from api_schemas.operating_point import ClassRates, GallerySize, OperatingPointConsistency, Score


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


class Identification(Schema):
    """Identification, 1:N, with unknown queries (their class is not in the gallery).

    ``fnir_at_fpir``: fraction of known queries with no match or a wrong one, at an FPIR of at most the key.
    """

    gallery: GallerySize
    unknown_queries: int
    fnir_at_fpir: dict[str, Finite | None]
    auroc: Finite | None


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


class Geometry(Schema):
    """Geometry of the vectors: alignment, uniformity (Wang & Isola 2020), tolerance (Wang & Liu 2021)."""

    alignment: Finite | None
    uniformity: Finite | None
    tolerance: Finite | None


class Measurement(Schema):
    """Origin of a report or a diagnosis."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created_at: datetime
    model_hash: str
    data_hash: str
    split: str
    score: Score
    reasons: list[str]


class Report(Measurement):
    """The report. A figure that the data cannot give is null, and a sentence in ``reasons`` says why."""

    counts: Counts
    retrieval: Retrieval
    verification: Verification
    identification: Identification | None
    consistency: Consistency
    geometry: Geometry
