"""The ``calibration`` and ``index`` sections: what a bundle is built with."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator

from api_schemas.base import Finite
from api_schemas.manifest import IndexKind
from api_schemas.operating_point import TargetKind
from api_schemas.yaml_config import Part, format_yaml, validate_mapping
from common.choices import MOST_VECTORS, USUAL_CONFIDENCE, AggregateChoice, ScoreChoice


class CalibrationConfig(Part):
    """Operating points that ``export`` and ``build`` freeze.

    ``targets``: target kind to rate, e.g. ``{far: 0.01}``; without it the ladder of usual targets, from
    which the 1:N point with the least expected cost is made active: a false match costs
    ``false_match_cost`` misses, and ``unknown_share`` of the queries are unknown. ``proven_only`` makes no
    estimated points. ``group``: metadata columns in whose groups the targets must be met; with the mode
    ``own`` each group gets points of its own besides the general ones, which requests choose by ``group``.
    ``exclude_same``: what pairs share that count for nothing, e.g. a session. ``vectors``: of one object that
    a 1:N query has, e.g. the frames of a track; its points decide them together.
    """

    targets: dict[TargetKind, Finite | None] | None = None
    score: ScoreChoice = "auto"
    aggregate: AggregateChoice = "auto"
    confidence: Finite = Field(default=USUAL_CONFIDENCE, ge=0.5, lt=1)
    false_match_cost: Finite = Field(default=5.0, gt=0)
    unknown_share: Finite = Field(default=0.5, gt=0, lt=1)
    proven_only: bool = False
    group: list[str] = Field(default_factory=list)
    group_mode: Literal["every", "own"] = "every"
    exclude_same: list[str] = Field(default_factory=list)
    vectors: int = Field(default=1, ge=1, le=MOST_VECTORS)

    @field_validator("targets")
    @classmethod
    def _check_rates(
        cls, targets: dict[TargetKind, float | None] | None
    ) -> dict[TargetKind, float | None] | None:
        for kind, value in (targets or {}).items():
            if kind == "cost":
                raise ValueError("'cost' needs its costs: give it to `limen calibrate`")
            if (value is None) != (kind == "eer"):
                raise ValueError(f"{kind} needs {'no value (null)' if kind == 'eer' else 'a rate'}")
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{kind} must be between 0 and 1 (1 % is 0.01), found {value:g}")
        return targets


class IndexConfig(Part):
    """The engine that proposes candidates. ``auto`` takes flat while exact search is fast enough.

    ``recall``: the fraction of the ten nearest that a search is to find; the build measures what that takes.
    ``m``, ``ef_construction`` and ``ef_search`` are HNSW's links per node and its list sizes, ``nprobe`` is
    how many cells ``ivf_pq`` searches: ``ef_search`` or ``nprobe`` set the effort instead of ``recall``.
    """

    kind: Literal["auto", IndexKind] = "auto"
    recall: Finite = Field(default=0.98, ge=0.5, lt=1)
    m: int = Field(default=32, ge=4, le=256)
    ef_construction: int = Field(default=200, ge=8)
    ef_search: int | None = Field(default=None, ge=8)
    nprobe: int | None = Field(default=None, ge=1)


class BuildConfig(Part):
    """The sections that ``limen build`` and ``limen export`` take with ``--set``."""

    calibration: CalibrationConfig = CalibrationConfig()
    index: IndexConfig = IndexConfig()

    @classmethod
    def from_overrides(cls, overrides: list[str]) -> BuildConfig:
        """The defaults with ``key.path=value`` applied; raises ConfigError naming the key."""
        return validate_mapping(BuildConfig, {}, overrides, "--set")

    def with_overrides(self, overrides: list[str]) -> Self:
        """A copy with ``index.*`` and ``calibration.*`` changed by ``key.path=value``; raises ConfigError."""
        now = self.model_dump(mode="json", include={"calibration", "index"})
        changed = validate_mapping(BuildConfig, now, overrides, "--set")
        return self.model_copy(update={"calibration": changed.calibration, "index": changed.index})

    def to_yaml(self) -> str:
        """The resolved configuration as YAML text."""
        return format_yaml(self.model_dump(mode="json"))
