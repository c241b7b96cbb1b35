"""``limen compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import say, track
from decision.operating_point_files import read_point
from limen.pipeline.evaluation_source import open_source

if TYPE_CHECKING:
    from api_schemas.comparison import Comparison


def compare(
    a: Annotated[Path, typer.Argument(help="The old model: a run folder or an embeddings file.")],
    b: Annotated[Path, typer.Argument(help="The new model: the same items, by id and label.")],
    point_a: Annotated[Path | None, typer.Option(help="The old model's operating point.")] = None,
    point_b: Annotated[Path | None, typer.Option(help="The new model's operating point.")] = None,
    exclude_same: Annotated[
        str | None, typer.Option(help="Leave out pairs that share this column's value, e.g. camera.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write comparison.json.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison alone, as JSON.")] = False,
) -> None:
    """Compare two models on the same items: paired differences, decisions that flip, compatibility.

    Without operating points each model is cut at its own pooled FAR of 1 %.
    """
    from evaluation.comparison.compare import compare as measure

    old, new = open_source(a, "old"), open_source(b, "new")
    points = [None if path is None else read_point(path) for path in (point_a, point_b)]
    found = measure(
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
    typer.echo(found.to_json() if json_ else _table(found), nl=not json_)
    if out:
        found.save(out)
        say(f"Wrote {out}.")


def _table(found: Comparison) -> str:
    lines = [f"{found.n_items:,} items of {found.n_classes:,} classes; difference = new - old, 95 % interval"]
    for one in found.differences:
        if one.a is None or one.b is None or one.difference is None:
            continue
        interval = f"{one.interval[0]:+.4f} to {one.interval[1]:+.4f}" if one.interval else "no interval"
        lines.append(f"  {one.name:<24}{one.a:>9.4f}{one.b:>9.4f}{one.difference:>+10.4f}   {interval}")
    flips = found.flips
    lines.append(
        f"Flips: genuine pairs {flips.genuine_gained:,} gained, {flips.genuine_lost:,} lost; "
        f"impostor pairs {flips.impostor_gained:,} gained, {flips.impostor_lost:,} lost."
    )
    if found.compatibility:
        mixed = found.compatibility
        lines.append(
            f"New queries against the old gallery: recall@1 {mixed.recall_at_1_new_old:.4f} "
            f"(old against old {mixed.recall_at_1_old_old:.4f}): "
            f"{'compatible' if mixed.compatible else 'not compatible, index the gallery again'}."
        )
    return "\n".join([*lines, *found.reasons])
