"""What a threshold is asked to do, as flags of a command."""

from __future__ import annotations

from api_schemas.errors import ConfigError
from api_schemas.operating_point import Target, TargetKind


def share_target(kind: TargetKind, value: float, confidence: float) -> Target:
    """A target that is a share in (0, 1); raises ConfigError otherwise."""
    if not 0 < value < 1:
        raise ConfigError(f"--target-{kind} must be between 0 and 1 (1 % is 0.01), found {value:g}.")
    return Target(kind=kind, value=value, confidence=confidence)


def chosen_targets(far: float | None, fpir: float | None) -> dict[TargetKind, float]:
    """The targets that were given as flags; an empty dictionary leaves the choice to the configuration."""
    given: dict[TargetKind, float] = {}
    if far is not None:
        given["far"] = share_target("far", far, 0.95).value or far
    if fpir is not None:
        given["fpir"] = share_target("fpir", fpir, 0.95).value or fpir
    return given


def name_of(target: Target) -> str:
    """A readable default name, e.g. ``far-1%``."""
    return target.kind if target.value is None else f"{target.kind}-{100 * target.value:g}%"
