"""``limen calibrate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.choices import UNNAMED, USUAL_CONFIDENCE, ScoreChoice
from common.console import say, track
from common.errors import CalibrationRefused, ConfigError
from limen.cli.point_flags import NO_FLAGS, PointFlags, takes_point_flags

if TYPE_CHECKING:
    from api_schemas.build_config import CalibrationConfig
    from api_schemas.operating_point import Evidence, Status, Target
    from limen.pipeline.bundle_points import BundlePoints


@takes_point_flags
def calibrate(
    source: Annotated[Path, typer.Argument(help="A run folder or an embeddings file.")],
    out: Annotated[Path | None, typer.Option(help="Where to write operating_point.json.")] = None,
    target_far: Annotated[
        float | None, typer.Option(help="1:1. Fraction of impostor pairs accepted.")
    ] = None,
    target_fpir: Annotated[
        str | None,
        typer.Option(
            help="1:N. Fraction of unknown queries matched; `auto` (the default without a target) takes "
            "the rung of the ladder with the least expected cost."
        ),
    ] = None,
    target_frr: Annotated[float | None, typer.Option(help="1:1. Fraction of genuine pairs rejected.")] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="How many misses one false match costs (default 5), for the choice of the ladder's rung; or "
            "1:1, least expected cost: FALSE_MATCH,FALSE_NON_MATCH,PRIOR, e.g. 10,1,0.01."
        ),
    ] = None,
    eer: Annotated[bool, typer.Option("--eer", help="1:1. The threshold where FAR equals FRR.")] = False,
    estimated: Annotated[
        bool, typer.Option("--estimated", help="Take the best estimate even where a bound can be proven.")
    ] = False,
    score: Annotated[ScoreChoice, typer.Option(help="The kind of score to threshold.")] = "auto",
    flags: PointFlags = NO_FLAGS,
    name: Annotated[
        str | None, typer.Option(help="The point's name; made from the target unless given.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Confidence of the one-sided upper bound of a proven point.")
    ] = USUAL_CONFIDENCE,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only estimate how many classes and items the target would need.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Name of the model, for embeddings without an encoder.")
    ] = UNNAMED,
) -> None:
    """Choose a threshold for a target, and show what it does: proven by an upper bound, or estimated.

    Without a target: the ladder of usual targets, and of its 1:N points the one with the least expected cost.
    A run is fitted on its validation classes and measured on its test classes; an embeddings file on folds
    of its classes. A target that the data cannot prove is estimated; with --proven-only the exit code is 2
    then, and the message says what would do.
    """
    from api_schemas.build_config import BuildConfig
    from api_schemas.operating_point import Target
    from decision.describe_point import describe_point
    from decision.operating_point_files import SavedPoint
    from decision.targets import parse_rate
    from evaluation.calibration.calibrate import calibrate_threshold
    from evaluation.metrics.data_faults import list_data_faults
    from limen.pipeline.bundle_points import calibrate_points
    from limen.pipeline.evaluation_source import open_source
    from limen.pipeline.point_options import PointOptions
    from limen.pipeline.two_models.roles import check_role_options, compare_roles

    if estimated and flags["proven_only"]:
        raise ConfigError("--estimated and --proven-only exclude each other.")
    is_of_ladder = cost is not None and "," not in cost
    options = PointOptions.read(
        **flags, cost=parse_rate("--cost", cost) if cost is not None and is_of_ladder else None
    )
    settings = options.apply(BuildConfig()).calibration
    settings = settings.model_copy(update={"score": score, "confidence": confidence})
    target = _read_target(settings, target_far, target_fpir, target_frr, eer, None if is_of_ladder else cost)
    if settings.group and target is not None and target.kind not in ("far", "fpir"):
        raise ConfigError(
            "--group goes with the ladder, --target-far and --target-fpir: other targets are of all items."
        )
    if out is None and not plan:
        raise ConfigError("--out FILE is needed: where to write the operating point.")
    opened, unknown_queries, _ = options.read_labels(open_source(source, model))
    if opened.role_column is not None:
        check_role_options(options)
        opened, settings = compare_roles(opened, settings)
    if plan:
        from evaluation.calibration.planning.sample_size import plan_data

        wanted = target or Target(kind="fpir", value=0.01, confidence=confidence)
        typer.echo(plan_data(opened.fit, wanted, track=track).sentence)
        return
    assert out is not None
    for fault in list_data_faults(opened.fit, settings.exclude_same, unknown=unknown_queries):
        say(fault)
    if target is None or target.kind in ("far", "fpir"):
        if target is not None:
            settings = settings.model_copy(update={"targets": {target.kind: target.value}})
        points = calibrate_points(opened, None, settings, cohort=options.cohort, unknown=unknown_queries)
        asked: Status | None = None if target is None else "estimated" if estimated else "proven"
        chosen = _choose(points, asked)
        saved = next((saved for saved in points.saved if saved.point.id == chosen), None)
        if saved is None:
            raise CalibrationRefused(" ".join(points.reasons))
        if name is not None:
            saved = SavedPoint(saved.point.with_changes(name=name), saved.cohort, saved.class_arrays)
    else:
        sources = replace(
            opened.get_calibration_sources(),
            cohort=options.cohort,
            unknown=unknown_queries,
            exclude_same=settings.exclude_same,
        )
        calibration = calibrate_threshold(
            sources, target, score=score, name=name, model_hash=opened.model_hash, track=track
        )
        saved = SavedPoint(calibration.point, calibration.cohort, calibration.class_arrays)
    saved.save(out)
    point = saved.point
    say(f"Wrote {out}: accepted if and only if {point.score.kind} score >= {point.threshold:.6f}.")
    typer.echo(f"{point.name} ({point.status}): {describe_point(point)}.")
    for part, evidence in (("fit", point.fit), ("proof", point.proof)):
        if evidence is not None:
            typer.echo(f"{part:<6}{_format_rates(evidence)}")
    say(f"Fit: {point.fit.method}.")
    if point.proof is not None:
        say(f"Proof: {point.proof.method}.")


def _choose(points: BundlePoints, asked: Status | None) -> str | None:
    """The id of the point to write: the one of the status that was asked for, else the one that decides."""
    of_status = next((point.id for point in points.points if point.status == asked), None)
    return of_status or points.active.get("match") or points.active.get("verify")


def _read_target(
    settings: CalibrationConfig,
    far: float | None,
    fpir: str | None,
    frr: float | None,
    eer: bool,
    cost: str | None,
) -> Target | None:
    """The one target that was given; None for the ladder."""
    from decision.targets import build_target, parse_costs, parse_rate

    if fpir in (None, "auto") and (far, frr, cost) == (None, None, None) and not eer:
        return None
    rule = settings.aggregate
    return build_target(
        settings.confidence,
        far=far,
        fpir=None if fpir is None else parse_rate("--target-fpir", fpir),
        frr=frr,
        eer=eer,
        cost=None if cost is None else parse_costs(cost),
        aggregate="nearest" if rule == "auto" else rule,
        vectors=settings.vectors,
    )


def _format_rates(evidence: Evidence) -> str:
    """Rates with their upper bounds, e.g. ``FAR 0.9 % (at most 1 %)``."""
    rates = []
    for name in ("far", "frr", "fpir", "fnir"):
        value, bound = getattr(evidence, name), getattr(evidence, f"{name}_upper", None)
        if value is not None:
            at_most = "" if bound is None else f" (at most {100 * bound:.3g} %)"
            rates.append(f"{name.upper()} {100 * value:.3g} %{at_most}")
    return f"{', '.join(rates)}; {evidence.n_classes} classes, {evidence.n_items} items"
