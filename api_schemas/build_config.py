"""The ``calibration`` and ``index`` sections: what a bundle is built with."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator

from api_schemas.base import Finite
from api_schemas.manifest import IndexKind
from api_schemas.operating_point import ScoreChoice, Target, TargetKind
from api_schemas.yaml_config import Part, format_yaml, validate_mapping

EncoderPrecision = Literal["int8", "fp16"]
"""Precisions that ``limen export --precision`` quantises an encoder's weights to."""


class CalibrationConfig(Part):
    """Operating points that ``export`` and ``build`` freeze: target kind to rate, e.g. ``{far: 0.01}``."""

    targets: dict[TargetKind, Finite | None] = Field(
        default_factory=lambda: dict[TargetKind, float | None]({"far": 0.01, "fpir": 0.01})
    )
    score: ScoreChoice = "auto"
    confidence: Finite = Field(default=0.95, ge=0.5, lt=1)

    @field_validator("targets")
    @classmethod
    def _check_rates(cls, targets: dict[TargetKind, float | None]) -> dict[TargetKind, float | None]:
        for kind, value in targets.items():
            if kind == "cost":
                raise ValueError("'cost' needs its costs: give it to `limen calibrate`")
            if (value is None) != (kind == "eer"):
                raise ValueError(f"{kind} needs {'no value (null)' if kind == 'eer' else 'a rate'}")
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{kind} must be between 0 and 1 (1 % is 0.01), found {value:g}")
        return targets

    def as_targets(self) -> list[Target]:
        """The targets in the form ``calibrate`` takes."""
        return [
            Target(kind=kind, value=value, confidence=self.confidence) for kind, value in self.targets.items()
        ]


class IndexConfig(Part):
    """The engine that proposes candidates. ``auto`` takes flat while exact search is fast enough.

    ``m``, ``ef_construction`` and ``ef_search`` are HNSW's links per node and its list sizes;
    without ``ef_search`` the build takes 128, and more where a set is larger than 200,000 vectors.
    ``nprobe`` is how many cells ``ivf_pq`` searches; without it the build measures how many are needed.
    """

    kind: Literal["auto", IndexKind] = "auto"
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
