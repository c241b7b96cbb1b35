"""Targets of a threshold: which endpoint each decides, and how flags of a command name one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from api_schemas.operating_point import Aggregate, OperatingPoint, Status, Target, TargetKind
from common.choices import MOST_VECTORS, USUAL_CONFIDENCE
from common.errors import ConfigError

Endpoint = Literal["verify", "match"]
ENDPOINTS: tuple[Endpoint, ...] = ("verify", "match")
ENDPOINT_OF_TARGET: dict[TargetKind, Endpoint] = {
    "far": "verify",
    "fpir": "match",
    "frr": "verify",
    "eer": "verify",
    "cost": "verify",
}


def get_endpoint(target: Target) -> Endpoint:
    """The endpoint that such a point decides: ``match`` (1:N) for FPIR, ``verify`` (1:1) otherwise."""
    return ENDPOINT_OF_TARGET[target.kind]


def select_active(points: Iterable[OperatingPoint]) -> dict[Endpoint, str | None]:
    """The id of the first point for each endpoint, or None."""
    active: dict[Endpoint, str | None] = dict.fromkeys(ENDPOINTS)
    for point in points:
        endpoint = get_endpoint(point.target)
        active[endpoint] = active[endpoint] or point.id
    return active


def build_rate_target(kind: TargetKind, value: float, confidence: float) -> Target:
    """A target that is a rate in (0, 1); raises ConfigError otherwise."""
    if not 0 < value < 1:
        raise ConfigError(
            f"the target {kind.upper()} must be between 0 and 1 (1 % is 0.01), found {value:g}."
        )
    return Target(kind=kind, value=value, confidence=confidence)


def build_target(
    confidence: float,
    *,
    far: float | None = None,
    fpir: float | None = None,
    frr: float | None = None,
    eer: bool = False,
    cost: tuple[float, float, float] | None = None,
    aggregate: Aggregate = "nearest",
    vectors: int = 1,
) -> Target:
    """The one target that was given; raises ConfigError for none, several, a rate outside (0, 1), or an
    aggregate or several vectors of a target over pairs."""
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence must be at least 0.5 and below 1, found {confidence:g}.")
    flags: dict[TargetKind, float | None] = {"far": far, "fpir": fpir, "frr": frr}
    given = [build_rate_target(kind, value, confidence) for kind, value in flags.items() if value is not None]
    if eer:
        given.append(Target(kind="eer", confidence=confidence))
    if cost is not None:
        given.append(Target(kind="cost", confidence=confidence, cost_parameters=_build_cost_parameters(cost)))
    if len(given) != 1:
        raise ConfigError(f"give exactly one target (FAR, FPIR, FRR, EER or cost), found {len(given)}.")
    if aggregate != "nearest" and get_endpoint(given[0]) != "match":
        raise ConfigError(f"the aggregate {aggregate} is of a 1:N search: it needs a target FPIR.")
    if vectors != 1 and get_endpoint(given[0]) != "match":
        raise ConfigError(f"queries of {vectors} vectors are of a 1:N search: they need a target FPIR.")
    return given[0].model_copy(update={"aggregate": aggregate, "vectors": vectors})


def check_vectors(vectors: object) -> None:
    """Raises ConfigError unless it is a number of vectors that a query can have."""
    if isinstance(vectors, bool) or not isinstance(vectors, int) or not 1 <= vectors <= MOST_VECTORS:
        raise ConfigError(f"vectors must be a whole number from 1 to {MOST_VECTORS:,}, found {vectors!r}.")


def parse_costs(text: str) -> tuple[float, float, float]:
    """The three numbers of ``--cost``; raises ConfigError for anything else."""
    try:
        false_match, false_non_match, prior = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--cost needs FALSE_MATCH,FALSE_NON_MATCH,PRIOR, e.g. 10,1,0.01; found '{text}'."
        ) from None
    return false_match, false_non_match, prior


def _build_cost_parameters(cost: tuple[float, float, float]) -> dict[str, float]:
    false_match, false_non_match, prior = cost
    if not (0 < false_match < math.inf and 0 < false_non_match < math.inf and 0 < prior < 1):
        raise ConfigError(
            "a cost is two positive costs (of a false match, of a false non-match) and a prior between "
            f"0 and 1, found {', '.join(f'{number:g}' for number in cost)}."
        )
    return {"cost_false_match": false_match, "cost_false_non_match": false_non_match, "prior": prior}


def select_given_targets(far: float | None, fpir: str | None) -> dict[TargetKind, float]:
    """The targets that were given as flags; an empty dictionary asks for the ladder of usual ones."""
    given: dict[TargetKind, float] = {} if far is None else {"far": far}
    if fpir not in (None, "auto"):
        given["fpir"] = parse_rate("--target-fpir", fpir)
    for kind, value in given.items():
        build_rate_target(kind, value, USUAL_CONFIDENCE)
    return given


def parse_rate(flag: str, text: str) -> float:
    """The number of a flag that may also be ``auto``; raises ConfigError for anything else."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} takes a fraction, e.g. 0.01 for 1 %, or auto; found '{text}'.") from None


def name_target(target: Target, status: Status | None = None) -> str:
    """A readable default name that tells a point from its neighbours: ``fpir-1%-evidence-estimated``.

    The confidence is in the name of a proven point, unless it is the usual 95 %; a group's in its own point.
    """
    name = target.kind if target.value is None else f"{target.kind}-{100 * target.value:g}%"
    parts = [name]
    if target.aggregate != "nearest":
        parts.append(target.aggregate.partition("_")[0])  # "mean_of_class" is called "mean"
    if target.vectors > 1:
        parts.append(f"{target.vectors}-vectors")
    if target.group is not None and target.group.mode == "own":
        parts.append("-".join([target.group.column, *target.group.values]))
    if status is not None:
        parts.append(status)
    if status == "proven" and target.confidence != USUAL_CONFIDENCE:
        parts.append(f"at-{100 * target.confidence:g}%")
    return "-".join(parts)
