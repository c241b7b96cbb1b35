"""An operating point: a frozen threshold with its proof (docs/specification.md, Operating point)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from api_schemas.base import SCHEMA_VERSION, Finite, Schema

ScoreKind = Literal["cosine", "density"]
ScoreChoice = Literal["auto", ScoreKind]
TargetKind = Literal["far", "fpir", "frr", "eer", "cost"]
Aggregate = Literal["nearest", "mean_of_class"]


class Score(Schema):
    """The score that a threshold is compared with; higher is more alike.

    ``cosine`` is the similarity itself; ``density`` corrects it by the local density around both
    items, in the form ``csls`` or ``logistic``, with the named parameters and a cohort of vectors.
    """

    kind: ScoreKind = "cosine"
    form: Literal["csls", "logistic"] | None = None
    parameters: dict[str, Finite | list[Finite] | list[int]] = Field(default_factory=dict)
    cohort_sha256: str | None = None

    @model_validator(mode="after")
    def _check_form(self) -> Score:
        if (self.kind == "density") != (self.form is not None and self.cohort_sha256 is not None):
            raise ValueError("a density score has a form and a cohort_sha256, a cosine score has neither")
        return self


class GallerySize(Schema):
    """Number of items and classes that a query is compared with."""

    items: int = Field(ge=1)
    classes: int = Field(ge=1)


class Target(Schema):
    """The rate that the threshold is set to reach. ``value`` is a rate in (0, 1); null for ``eer``.

    For ``cost`` it is the expected cost per trial that was reached, and ``cost_parameters`` holds
    ``cost_false_match``, ``cost_false_non_match`` and ``prior``. ``gallery`` is set for ``fpir``
    alone: FPIR grows with the gallery. ``aggregate`` is the rule by which several items of one class make
    one score in a 1:N search: the best of them, or their mean; a point decides by the rule it was made for.
    """

    kind: TargetKind
    value: Finite | None = None
    confidence: Finite = Field(default=0.95, gt=0, lt=1)
    gallery: GallerySize | None = None
    cost_parameters: dict[str, Finite] | None = None
    # left out where it is the usual one, so that such a point reads as it always did
    aggregate: Aggregate = Field(default="nearest", exclude_if=lambda rule: rule == "nearest")

    @model_validator(mode="after")
    def _check_aggregate(self) -> Target:
        if self.aggregate != "nearest" and self.kind != "fpir":
            raise ValueError(f"a target {self.kind} is about pairs and has no aggregate; fpir has")
        return self


class Evidence(Schema):
    """Rates of a threshold on one set of classes; a rate that cannot be given is null.

    ``far`` and ``frr`` are over pairs, ``fpir`` and ``fnir`` over queries against a gallery.
    ``*_upper`` are one-sided upper bounds at the target's confidence, from resampling classes.
    """

    n_items: int
    n_classes: int
    n_genuine_pairs: int
    n_impostor_pairs: int
    far: Finite | None
    far_upper: Finite | None
    frr: Finite | None
    frr_upper: Finite | None
    fpir: Finite | None
    fpir_upper: Finite | None
    fnir: Finite | None
    method: str
    classes_disjoint: bool


class ClassRates(Schema):
    """One class at one threshold; null where the class has no such pair."""

    label: str
    n_items: int
    far: Finite | None
    frr: Finite | None
    utility: Finite | None


class Probability(Schema):
    """The map from a score to the probability of a match, at a stated prior."""

    kind: Literal["platt", "temperature", "isotonic"]
    parameters: dict[str, Finite | list[Finite]]
    prior: Finite = Field(gt=0, lt=1)


class OperatingPointConsistency(Schema):
    """Consistency of the threshold over the classes of the proof (docs/specification.md, OPIS)."""

    opis: Finite | None
    opis_debiased: Finite | None
    opis_ci: tuple[Finite, Finite] | None
    noise_floor: Finite | None
    opis_logfar: Finite | None
    opis_logfar_debiased: Finite | None
    opis_logfar_ci: tuple[Finite, Finite] | None


class OperatingPoint(Schema):
    """A threshold bound to one model, accepted iff ``score >= threshold``, both float32."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    name: str
    created_at: datetime
    model_hash: str
    data_hash: str
    score: Score
    accept: Literal[">="] = ">="
    threshold: Finite
    target: Target
    fit: Evidence
    proof: Evidence | None
    per_class: list[ClassRates]
    probability: Probability | None
    consistency: OperatingPointConsistency | None
