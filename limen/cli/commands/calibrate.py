"""``limen calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api_schemas.operating_point import Aggregate, Evidence, ScoreChoice
from common.console import say, track
from common.errors import ConfigError
from decision.operating_point_files import SavedPoint
from decision.targets import build_target, name_target, parse_costs
from limen.pipeline.evaluation_source import UNNAMED, open_source


def calibrate(
    source: Annotated[Path, typer.Argument(help="A run folder or an embeddings file.")],
    out: Annotated[Path | None, typer.Option(help="Where to write operating_point.json.")] = None,
    target_far: Annotated[
        float | None, typer.Option(help="1:1. Fraction of impostor pairs accepted, at most.")
    ] = None,
    target_fpir: Annotated[
        float | None, typer.Option(help="1:N. Fraction of unknown queries matched, at most.")
    ] = None,
    target_frr: Annotated[
        float | None, typer.Option(help="1:1. Fraction of genuine pairs rejected, at most.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="1:1. Least expected cost: FALSE_MATCH,FALSE_NON_MATCH,PRIOR, e.g. 10,1,0.01."),
    ] = None,
    eer: Annotated[bool, typer.Option("--eer", help="1:1. The threshold where FAR equals FRR.")] = False,
    score: Annotated[ScoreChoice, typer.Option(help="The kind of score to threshold.")] = "auto",
    aggregate: Annotated[
        Aggregate, typer.Option(help="1:N. How several items of a class make one score.")
    ] = "nearest",
    name: Annotated[
        str | None, typer.Option(help="The point's name; made from the target unless given.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Confidence of the one-sided upper bound that must meet the target.")
    ] = 0.95,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only estimate how many classes and items the target would need.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Name of the model, for embeddings without an encoder.")
    ] = UNNAMED,
) -> None:
    """Choose a threshold whose upper confidence bound over classes meets a target, and prove it.

    A run is fitted on its validation classes and proven on its test classes. An embeddings file is
    fitted on all classes and proven on 20 random halvings of them. The exit code is 2 where the data cannot
    support the target; the message says what would.
    """
    from evaluation.calibration.calibrate import calibrate_threshold
    from evaluation.calibration.planning.sample_size import plan_data

    target = build_target(
        confidence,
        far=target_far,
        fpir=target_fpir,
        frr=target_frr,
        eer=eer,
        cost=None if cost is None else parse_costs(cost),
        aggregate=aggregate,
    )
    if out is None and not plan:
        raise ConfigError("--out FILE is needed: where to write the operating point.")
    opened = open_source(source, model)
    if plan:
        typer.echo(plan_data(opened.fit, target, track=track).sentence)
        return
    assert out is not None
    calibration = calibrate_threshold(
        opened.fit,
        target,
        proof=opened.proof,
        score=score,
        training=opened.training,
        name=name or name_target(target),
        model_hash=opened.model_hash,
        track=track,
    )
    point = calibration.point
    SavedPoint(point, calibration.cohort).save(out)
    say(f"Wrote {out}: accepted if and only if {point.score.kind} score >= {point.threshold:.6f}.")
    for part, evidence in (("fit", point.fit), ("proof", point.proof)):
        if evidence is not None:
            typer.echo(f"{part:<6}{_format_rates(evidence)}")
    say(f"Fit: {point.fit.method}.")


def _format_rates(evidence: Evidence) -> str:
    """Rates with their upper bounds, e.g. ``FAR 0.9 % (at most 1 %)``."""
    rates = []
    for name in ("far", "frr", "fpir", "fnir"):
        value, bound = getattr(evidence, name), getattr(evidence, f"{name}_upper", None)
        if value is not None:
            at_most = "" if bound is None else f" (at most {100 * bound:.3g} %)"
            rates.append(f"{name.upper()} {100 * value:.3g} %{at_most}")
    return f"{', '.join(rates)}; {evidence.n_classes} classes, {evidence.n_items} items"
