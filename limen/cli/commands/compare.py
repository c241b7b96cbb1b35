"""``limen compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from limen.cli.options import ExcludeSame


def compare(
    a: Annotated[Path, typer.Argument(help="The old model: a run folder or an embeddings file.")],
    b: Annotated[Path, typer.Argument(help="The new model: the same items, by id and label.")],
    point_a: Annotated[Path | None, typer.Option(help="The old model's operating point.")] = None,
    point_b: Annotated[Path | None, typer.Option(help="The new model's operating point.")] = None,
    exclude_same: ExcludeSame = None,
    out: Annotated[Path | None, typer.Option(help="Where to write comparison.json.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison alone, as JSON.")] = False,
) -> None:
    """Compare two models on the same items: paired differences, decisions that flip, compatibility.

    Without operating points each model decides at its own pooled FAR of 1 %.
    """
    from decision.operating_point_files import read_point
    from evaluation.comparison.compare import compare_models
    from evaluation.comparison.describe_comparison import describe_comparison
    from limen.pipeline.evaluation_source import open_source
    from limen.pipeline.two_models.roles import check_no_roles

    old, new = open_source(a, "old"), open_source(b, "new")
    for source in (old, new):
        check_no_roles(source, "limen compare")
    points = [None if path is None else read_point(path) for path in (point_a, point_b)]
    comparison = compare_models(
        old.items,
        new.items,
        scorer_a=points[0].scorer if points[0] else None,
        scorer_b=points[1].scorer if points[1] else None,
        threshold_a=points[0].point.threshold if points[0] else None,
        threshold_b=points[1].point.threshold if points[1] else None,
        model_hash_a=old.model_hash,
        model_hash_b=new.model_hash,
        exclude_same=exclude_same,
        track=track,
    )
    typer.echo(comparison.to_json() if json_ else describe_comparison(comparison), nl=not json_)
    if out:
        comparison.save(out)
        say(f"Wrote {out}.")
