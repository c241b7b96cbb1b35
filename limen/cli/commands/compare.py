"""``limen compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import say, track
from decision.operating_point_files import read_point
from limen.cli.options import ExcludeSame
from limen.pipeline.evaluation_source import open_source

if TYPE_CHECKING:
    from api_schemas.comparison import Comparison


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
    from evaluation.comparison.compare import compare_models

    old, new = open_source(a, "old"), open_source(b, "new")
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
    typer.echo(comparison.to_json() if json_ else _format_table(comparison), nl=not json_)
    if out:
        comparison.save(out)
        say(f"Wrote {out}.")


def _format_table(comparison: Comparison) -> str:
    lines = [
        f"{comparison.n_items:,} items of {comparison.n_classes:,} classes; "
        "difference = new - old, 95 % interval"
    ]
    for row in comparison.differences:
        if row.a is None or row.b is None or row.difference is None:
            continue
        interval = f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}" if row.interval else "no interval"
        lines.append(f"  {row.name:<24}{row.a:>9.4f}{row.b:>9.4f}{row.difference:>+10.4f}   {interval}")
    flips = comparison.flips
    lines.append(
        f"Flips: genuine pairs {flips.genuine_gained:,} gained, {flips.genuine_lost:,} lost; "
        f"impostor pairs {flips.impostor_gained:,} gained, {flips.impostor_lost:,} lost."
    )
    if comparison.compatibility:
        mixed = comparison.compatibility
        lines.append(
            f"New queries against the old gallery: recall@1 {mixed.recall_at_1_new_old:.4f} "
            f"(old against old {mixed.recall_at_1_old_old:.4f}): "
            f"{'compatible' if mixed.compatible else 'not compatible: embed the gallery again'}."
        )
    return "\n".join([*lines, *comparison.reasons])
