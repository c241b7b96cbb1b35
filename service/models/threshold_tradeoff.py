"""The tradeoff of an endpoint's threshold, and an operating point of a threshold that is chosen on it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from api_schemas.http.tradeoff import ThresholdMark, TradeoffResponse
from api_schemas.operating_point import Evidence, OperatingPoint, Proof, Target
from api_schemas.tradeoff import RateName, Tradeoff
from decision.targets import Endpoint, get_endpoint
from service.errors.problems import INVALID_REQUEST, NOT_FOUND, ServiceProblem, build_field_problem
from service.models.loaded_model import LoadedModel

FALSE: dict[Endpoint, RateName] = {"match": "fpir", "verify": "far"}
MISSED: dict[Endpoint, RateName] = {"match": "fnir", "verify": "frr"}
LEAST_RATE = 1e-6  # a target is a rate above 0


def find_tradeoff(model: LoadedModel, endpoint: Endpoint) -> Tradeoff:
    """The tradeoff of the score and rule that decide an endpoint; raises the problem ``not-found``."""
    report = model.report
    tradeoff = next(
        (one for one in ([] if report is None else report.tradeoffs) if one.endpoint == endpoint), None
    )
    if tradeoff is None:
        raise ServiceProblem(
            NOT_FOUND,
            f"The bundle holds no rates of other thresholds for {endpoint}: it was made by an earlier "
            "version, or its classes do not support any. `limen export RUN --out BUNDLE`, or `limen build`, "
            "makes one that has them.",
        )
    point = get_active(model, endpoint)
    if point is not None and not _decides_alike(point, tradeoff):
        raise ServiceProblem(
            NOT_FOUND,
            f"The bundle's rates are of the {_describe_score(tradeoff)}, and the active point "
            f"'{point.name}' thresholds another score: activate one of that score, or make a bundle with "
            "this point (`limen export --operating-point`).",
        )
    return tradeoff


def get_active(model: LoadedModel, endpoint: Endpoint) -> OperatingPoint | None:
    """The point that decides an endpoint."""
    return model.active_match if endpoint == "match" else model.active_verify


def build_tradeoff_response(
    model: LoadedModel, endpoint: Endpoint, unknown_share: float, false_match_cost: float
) -> TradeoffResponse:
    """The tradeoff with the expected cost, and the operating points that lie on its grid."""
    tradeoff = find_tradeoff(model, endpoint)
    false, missed = getattr(tradeoff, FALSE[endpoint]), getattr(tradeoff, MISSED[endpoint])
    cost = None
    if false is not None and missed is not None:
        cost = [
            unknown_share * false_match_cost * wrong + (1 - unknown_share) * lost
            for wrong, lost in zip(false, missed, strict=True)
        ]
    active = get_active(model, endpoint)
    marks = [
        ThresholdMark(
            id=point.id,
            name=point.name,
            threshold=point.threshold,
            index=_find_nearest(tradeoff, point.threshold),
            status=point.status,
            active=active is not None and point.id == active.id,
        )
        for point in model.points.values()
        if get_endpoint(point.target) == endpoint and _decides_alike(point, tradeoff)
    ]
    return TradeoffResponse(
        **tradeoff.model_dump(exclude_none=False),
        unknown_share=unknown_share,
        false_match_cost=false_match_cost,
        cost=cost,
        active_threshold=None if active is None else active.threshold,
        points=sorted(marks, key=lambda mark: (mark.threshold, mark.name)),
    )


def choose_threshold(
    model: LoadedModel, endpoint: Endpoint, threshold: float, name: str | None
) -> OperatingPoint:
    """An operating point of a threshold that was chosen by hand, with the rates of the tradeoff as its proof.

    Between two thresholds of the grid it has the false rates of the lower and the misses of the higher one.

    Raises:
        ServiceProblem: there is no tradeoff, or the threshold is outside of it.
    """
    tradeoff = find_tradeoff(model, endpoint)
    grid = np.array(tradeoff.thresholds)
    if not grid[0] <= threshold <= grid[-1]:
        raise build_field_problem(
            INVALID_REQUEST,
            "threshold",
            f"must be from {grid[0]:.6g} to {grid[-1]:.6g}, the thresholds whose rates are known, found "
            f"{threshold:.6g}",
        )
    value = float(np.float32(threshold)) + 0.0  # never a negative zero
    below = int(np.searchsorted(grid, value, side="right")) - 1
    above = int(np.searchsorted(grid, value, side="left"))

    def read(rate: str, at: int) -> float | None:
        curve: list[float] | None = getattr(tradeoff, rate)
        return None if curve is None else curve[at]

    is_match = endpoint == "match"
    evidence = Evidence(
        n_items=tradeoff.n_items,
        n_classes=tradeoff.n_classes,
        n_genuine_pairs=tradeoff.n_genuine_pairs,
        n_impostor_pairs=tradeoff.n_impostor_pairs,
        far=read("far", below),
        far_upper=read("far_upper", below),
        frr=read("frr", above),
        frr_upper=None,
        fpir=read("fpir", below),
        fpir_upper=read("fpir_upper", below),
        fnir=read("fnir", above),
        method=f"chosen by hand on the curve of its rates: {tradeoff.method}",
        classes_disjoint=True,
    )
    false = FALSE[endpoint]
    rate = getattr(evidence, false) or getattr(evidence, f"{false}_upper") or LEAST_RATE
    like = _find_like(model, endpoint, tradeoff)
    return OperatingPoint.freeze(
        name=name or f"chosen-{value:.4g}",
        created_at=datetime.now(UTC),
        model_hash=model.model_hash,
        data_hash="" if like is None else like.data_hash,
        score=tradeoff.score,
        threshold=value,
        target=Target(
            kind="fpir" if is_match else "far",
            value=min(max(rate, LEAST_RATE), 1 - LEAST_RATE),
            confidence=tradeoff.confidence,
            gallery=tradeoff.gallery if is_match else None,
            aggregate=tradeoff.aggregate if is_match else "nearest",
        ),
        fit=evidence,
        proof=Proof(**evidence.model_dump(), status="chosen"),
        per_class=[],
        # of the score, whatever its threshold
        probability=None if like is None else like.probability,
        answer=None if like is None else like.answer,
        consistency=None,
    )


def _find_like(model: LoadedModel, endpoint: Endpoint, tradeoff: Tradeoff) -> OperatingPoint | None:
    """A point of the same score and rule, the active one first: what it says of scores holds here too."""
    active = get_active(model, endpoint)
    points = [point for point in (active, *model.points.values()) if point is not None]
    return next(
        (
            point
            for point in points
            if get_endpoint(point.target) == endpoint and _decides_alike(point, tradeoff)
        ),
        None,
    )


def _decides_alike(point: OperatingPoint, tradeoff: Tradeoff) -> bool:
    """Whether a point thresholds the score of the tradeoff, by the same rule."""
    return (
        point.score == tradeoff.score
        and point.target.aggregate == tradeoff.aggregate
        and point.target.vectors == 1
    )


def _describe_score(tradeoff: Tradeoff) -> str:
    return f"{tradeoff.score.kind} score by the rule {tradeoff.aggregate}"


def _find_nearest(tradeoff: Tradeoff, threshold: float) -> int:
    return int(np.argmin(np.abs(np.array(tradeoff.thresholds) - threshold)))
