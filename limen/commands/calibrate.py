"""``limen calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from api_schemas.errors import ConfigError
from api_schemas.operating_point import Target
from limen.progress import say, track
from limen.source import UNNAMED, open_source
from limen.targets import name_of, share_target


def calibrate(
    source: Annotated[Path, typer.Argument(help="A run folder or an embeddings file.")],
    out: Annotated[Path, typer.Option(help="Where to write operating_point.json.")],
    target_far: Annotated[float | None, typer.Option(help="1:1. Share of impostor pairs accepted, at most.")] = None,
    target_fpir: Annotated[float | None, typer.Option(help="1:N. Share of unknown queries matched, at most.")] = None,
    target_frr: Annotated[float | None, typer.Option(help="1:1. Share of genuine pairs rejected, at most.")] = None,
    eer: Annotated[bool, typer.Option("--eer", help="1:1. Where FAR equals FRR.")] = False,
    score: Annotated[
        Literal["auto", "cosine", "density"], typer.Option(help="Which score to threshold.")
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="The point's name; made from the target unless given.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the one-sided bound that must meet the target.")] = 0.95,
    model: Annotated[str, typer.Option(help="The model's name, for embeddings without an encoder.")] = UNNAMED,
) -> None:
    """Choose a threshold whose upper confidence bound over CLASSES meets a target, and prove it.

    A run is fitted on its validation classes and proven on its test classes. An embeddings file is
    fitted on all classes and proven on 20 random halvings of them. Exit code 2 where the data cannot
    support the target; the message says what would.
    """
    from evaluation.calibrate import calibrate as choose

    if not 0.5 <= confidence < 1:
        raise ConfigError(f"--confidence must be at least 0.5 and below 1, found {confidence:g}.")
    targets: list[Target] = []
    for kind, value in (("far", target_far), ("fpir", target_fpir), ("frr", target_frr)):
        if value is not None:
            targets.append(share_target(kind, value, confidence))  # type: ignore[arg-type]
    if eer:
        targets.append(Target(kind="eer", confidence=confidence))
    if len(targets) != 1:
        raise ConfigError(
            f"give exactly one of --target-far, --target-fpir, --target-frr, --eer; found {len(targets)}."
        )
    opened = open_source(source, model)
    done = choose(
        opened.items if opened.fit is None else opened.fit,
        targets[0],
        proof=None if opened.fit is None else opened.items,
        score=score,
        cohort=opened.cohort,
        confidence=confidence,
        name=name or name_of(targets[0]),
        model_hash=opened.model_hash,
        track=track,
    )
    done.point.save(out)
    say(f"Wrote {out}: accept iff {done.point.score.kind} >= {done.point.threshold:.6f}.")
