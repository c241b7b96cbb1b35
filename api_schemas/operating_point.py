"""An operating point: a frozen threshold with its proof (docs/specification.md, Operating point)."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from api_schemas.base import Finite, Schema
from common.choices import Aggregate as Aggregate
from common.choices import AggregateChoice as AggregateChoice
from common.choices import ScoreChoice as ScoreChoice

ScoreKind = Literal["cosine", "density", "conjnorm", "evidence"]
TargetKind = Literal["far", "fpir", "frr", "eer", "cost"]
Status = Literal["proven", "estimated", "chosen"]
Interval = tuple[Finite, Finite]
POINT_VERSION: Literal[2] = 2


class Score(Schema):
    """The score that a threshold is compared with; higher is more alike.

    ``cosine`` is the similarity itself; ``density`` corrects it by the local density around both
    items, in the form ``csls`` or ``logistic``, with the named parameters and a cohort of vectors;
    ``conjnorm`` by their density under the prototypes of the cohort's classes.
    ``evidence`` scores a query with a whole class (``decision/class_evidence.py``): its form names the
    features, ``parameters`` their weights; ``class_model_sha256`` is the hash of the covariances that lie
    beside the point, for forms that need them.
    """

    kind: ScoreKind = "cosine"
    form: str | None = None
    parameters: dict[str, Finite | list[Finite] | list[int]] = Field(default_factory=dict)
    cohort_sha256: str | None = None
    class_model_sha256: str | None = Field(default=None, exclude_if=lambda digest: digest is None)

    @model_validator(mode="after")
    def _check_form(self) -> Score:
        if (self.kind == "density") != (self.form in {"csls", "logistic"}):
            raise ValueError("a density score has the form csls or logistic, others have not")
        if self.kind in ("density", "conjnorm") and self.cohort_sha256 is None:
            raise ValueError(f"a {self.kind} score has a cohort_sha256")
        if self.kind == "cosine" and (self.form, self.cohort_sha256) != (None, None):
            raise ValueError("a cosine score has neither form nor cohort_sha256")
        if self.kind in ("conjnorm", "evidence") and self.form is None:
            raise ValueError(f"a {self.kind} score has a form")
        return self


class GallerySize(Schema):
    """Number of items and classes that a query is compared with."""

    items: int = Field(ge=1)
    classes: int = Field(ge=1)


class GroupTarget(Schema):
    """The groups, values of a metadata column, that the target holds for.

    ``every``: one threshold that meets the target in each group. ``own``: a threshold for the one group
    named, which requests choose by ``group``.
    """

    column: str
    values: list[str] = Field(min_length=1)
    mode: Literal["every", "own"] = "every"


class Target(Schema):
    """The rate that the threshold is set to reach. ``value`` is a rate in (0, 1); null for ``eer``.

    For ``cost`` it is the expected cost per trial that was reached, and ``cost_parameters`` holds
    ``cost_false_match``, ``cost_false_non_match`` and ``prior``. ``gallery`` is set for ``fpir``
    alone: FPIR grows with the gallery. ``aggregate`` is the rule by which several items of one class make
    one score in a 1:N search: the best of them, their mean, or the evidence of the whole class; a point
    decides by the rule it was made for. ``vectors`` is how many vectors of one object a query has, e.g.
    the frames of a track; ``group`` restricts or tightens the target to groups.
    """

    kind: TargetKind
    value: Finite | None = None
    confidence: Finite = Field(default=0.95, gt=0, lt=1)
    gallery: GallerySize | None = None
    cost_parameters: dict[str, Finite] | None = None
    # left out where it is the usual one, so that such a point reads as it always did
    aggregate: Aggregate = Field(default="nearest", exclude_if=lambda rule: rule == "nearest")
    vectors: int = Field(default=1, ge=1, exclude_if=lambda n: n == 1)
    group: GroupTarget | None = Field(default=None, exclude_if=lambda group: group is None)

    @model_validator(mode="after")
    def _check_aggregate(self) -> Target:
        if self.aggregate != "nearest" and self.kind != "fpir":
            raise ValueError(f"a target {self.kind} is about pairs and has no aggregate; fpir has")
        return self


class UnknownRates(Schema):
    """FPIR of real unknown queries, of classes that are in no gallery; ``fpir_ci`` is two-sided."""

    n_queries: int
    fpir: Finite
    fpir_ci: Interval | None
    fpir_upper: Finite | None


class Evidence(Schema):
    """Rates of a threshold on one set of classes; a rate that cannot be given is null.

    ``far`` and ``frr`` are over pairs, ``fpir`` and ``fnir`` over queries against a gallery.
    ``*_upper`` are one-sided upper bounds at the target's confidence, from resampling classes; ``*_ci``
    two-sided intervals at the same confidence. ``unknown`` is about real unknown queries, where given.
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
    far_ci: Interval | None = Field(default=None, exclude_if=lambda ci: ci is None)
    frr_ci: Interval | None = Field(default=None, exclude_if=lambda ci: ci is None)
    fpir_ci: Interval | None = Field(default=None, exclude_if=lambda ci: ci is None)
    fnir_ci: Interval | None = Field(default=None, exclude_if=lambda ci: ci is None)
    unknown: UnknownRates | None = Field(default=None, exclude_if=lambda rates: rates is None)


class Proof(Evidence):
    """What is known about a threshold.

    ``proven``: the target is met by the upper bound. ``estimated``: the threshold is the best estimate, its
    rates lie within their intervals. ``chosen``: it was chosen by hand and measured afterwards.
    """

    status: Status = "proven"


class ClassRates(Schema):
    """One class at one threshold; null where the class has no such pair."""

    label: str
    n_items: int
    far: Finite | None
    frr: Finite | None
    utility: Finite | None


class Probability(Schema):
    """The map from a score to the probability of a match, at a stated prior."""

    kind: Literal["platt", "temperature", "isotonic", "h_calibration", "rank_mixup"]
    parameters: dict[str, Finite | list[Finite]]
    prior: Finite = Field(gt=0, lt=1)


MATCH_PROBABILITY_FILE = "match_probability.json"
"""In a run folder and a bundle: what a loss such as ``siglip`` learned, a ``Probability`` of cosines."""


class AnswerProbability(Schema):
    """The probability that a 1:N answer is right, as a logistic function of what the answer rests on.

    ``weights`` by outcome and feature (``decision/answer_probability.py``); ``ranges`` of the score and the
    gap that they were fitted on; ``unknown_share`` is the share of unknown queries that they hold for.
    """

    weights: dict[str, Finite]
    ranges: dict[Literal["score", "gap"], tuple[Finite, Finite]]
    unknown_share: Finite = Field(gt=0, lt=1)


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
    """A threshold bound to one model, accepted iff ``score >= threshold``, both float32.

    A point is its content: from version 2 on ``id`` is a hash over it, and a document whose content hashes
    to another id is refused. ``OperatingPoint.freeze`` makes one.
    """

    schema_version: Literal[1, 2] = POINT_VERSION
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")  # it names a file
    name: str
    created_at: datetime
    model_hash: str
    data_hash: str
    score: Score
    accept: Literal[">="] = ">="
    threshold: Finite
    target: Target
    fit: Evidence
    proof: Proof | None
    per_class: list[ClassRates]
    probability: Probability | None
    answer: AnswerProbability | None = Field(default=None, exclude_if=lambda answer: answer is None)
    consistency: OperatingPointConsistency | None

    @classmethod
    def freeze(cls, **content: Any) -> Self:
        """A point of this content under the id that it hashes to."""
        draft = cls.model_construct(**{"id": "", "answer": None, **content})
        return cls(**content, id=draft.compute_id())

    def with_changes(self, **changes: Any) -> Self:
        """Another point: this one with some of its content changed, under the id of that content."""
        content = {name: getattr(self, name) for name in type(self).model_fields}
        content |= {"schema_version": POINT_VERSION} | changes
        del content["id"]
        return self.freeze(**content)

    @property
    def status(self) -> Status:
        """Whether the threshold is proven, estimated or chosen by hand."""
        return "estimated" if self.proof is None else self.proof.status

    def compute_id(self) -> str:
        """The id that belongs to what the point decides by and what is proven of it.

        Fields at their defaults do not count, so that a later field leaves the ids of earlier points alone.
        """
        parts = {
            "model_hash": self.model_hash,
            "threshold": self.threshold,
            **{
                name: None if part is None else part.model_dump(mode="json", exclude_defaults=True)
                for name in ("score", "target", "proof", "probability", "answer")
                for part in (getattr(self, name),)
            },
        }
        content = json.dumps(parts, sort_keys=True, allow_nan=False)
        return "op-" + hashlib.sha256(content.encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        if self.schema_version > 1 and self.id != self.compute_id():
            raise ValueError(
                f"its content does not hash to its id {self.id}, so it was changed after it was made: a "
                "threshold of your own becomes a point by `limen evaluate VECTORS --threshold X --out FILE`"
            )
        return self
