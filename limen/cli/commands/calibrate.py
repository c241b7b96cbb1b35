"""``limen calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from api_schemas.operating_point import Evidence
from common.console import say, track
from common.errors import ConfigError
from decision.operating_point_files import SavedPoint
from decision.targets import costs, name_of, one_target
from limen.pipeline.evaluation_source import UNNAMED, open_source


def calibrate(
    source: Annotated[Path, typer.Argument(help="A run folder or an embeddings file.")],
    out: Annotated[Path | None, typer.Option(help="Where to write operating_point.json.")] = None,
    target_far: Annotated[
        float | None, typer.Option(help="1:1. Share of impostor pairs accepted, at most.")
    ] = None,
    target_fpir: Annotated[
        float | None, typer.Option(help="1:N. Share of unknown queries matched, at most.")
    ] = None,
    target_frr: Annotated[
        float | None, typer.Option(help="1:1. Share of genuine pairs rejected, at most.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="1:1. Least expected cost: FALSE_MATCH,FALSE_NON_MATCH,PRIOR, e.g. 10,1,0.01."),
    ] = None,
    eer: Annotated[bool, typer.Option("--eer", help="1:1. Where FAR equals FRR.")] = False,
    score: Annotated[
        Literal["auto", "cosine", "density"], typer.Option(help="Which score to threshold.")
    ] = "auto",
    aggregate: Annotated[
        Literal["nearest", "mean_of_class"],
        typer.Option(help="1:N. How several items of a class make one score."),
    ] = "nearest",
    name: Annotated[
        str | None, typer.Option(help="The point's name; made from the target unless given.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Of the one-sided bound that must meet the target.")
    ] = 0.95,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many classes and items the target would need instead.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="The model's name, for embeddings without an encoder.")
    ] = UNNAMED,
) -> None:
    """Choose a threshold whose upper confidence bound over CLASSES meets a target, and prove it.

    A run is fitted on its validation classes and proven on its test classes. An embeddings file is
    fitted on all classes and proven on 20 random halvings of them. Exit code 2 where the data cannot
    support the target; the message says what would.
    """
    from evaluation.calibration.calibrate import calibrate as choose
    from evaluation.calibration.sample_size import plan as plan_data

    target = one_target(
        confidence,
        far=target_far,
        fpir=target_fpir,
        frr=target_frr,
        eer=eer,
        cost=None if cost is None else costs(cost),
        aggregate=aggregate,
    )
    if out is None and not plan:
        raise ConfigError("--out FILE is needed: where to write the operating point.")
    opened = open_source(source, model)
    if plan:
        typer.echo(
            plan_data(opened.items if opened.fit is None else opened.fit, target, track=track).sentence
        )
        return
    assert out is not None
    done = choose(
        opened.items if opened.fit is None else opened.fit,
        target,
        proof=None if opened.fit is None else opened.items,
        score=score,
        cohort=opened.cohort,
        name=name or name_of(target),
        model_hash=opened.model_hash,
        track=track,
    )
    saved = SavedPoint(done.point, done.cohort)
    saved.save(out)
    say(f"Wrote {out}: accept iff {done.point.score.kind} score >= {done.point.threshold:.6f}.")
    for name_of_part, part in (("fit", done.point.fit), ("proof", done.point.proof)):
        if part is not None:
            typer.echo(f"{name_of_part:<6}{_rates(part)}")
    say(f"Fit: {done.point.fit.method}.")


def _rates(part: Evidence) -> str:
    """Rates with their upper bounds, e.g. ``FAR 0.9 % (at most 1 %)``."""
    shown = []
    for rate, upper in (("far", "far_upper"), ("frr", "frr_upper"), ("fpir", "fpir_upper"), ("fnir", None)):
        value = getattr(part, rate)
        if value is None:
            continue
        bound = getattr(part, upper) if upper else None
        at_most = "" if bound is None else f" (at most {100 * bound:.3g} %)"
        shown.append(f"{rate.upper()} {100 * value:.3g} %{at_most}")
    return f"{', '.join(shown)}; {part.n_classes} classes, {part.n_items} items"
