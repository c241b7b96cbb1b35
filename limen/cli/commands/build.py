"""``limen build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say
from common.optional_packages import needs
from decision.targets import chosen_targets
from limen.pipeline.evaluation_source import UNNAMED


def build(
    embeddings: Annotated[
        Path, typer.Argument(help="An embeddings file (.npz, .npy, .parquet); all rows are the gallery.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    model: Annotated[str, typer.Option(help="What the model that made the vectors is called.")] = UNNAMED,
    labels: Annotated[
        Path | None, typer.Option(help="Labels of a .npy file: a .npy, or a .parquet with ids and metadata.")
    ] = None,
    sample_items: Annotated[
        int | None,
        typer.Option(
            min=2, help="Measure thresholds on at most so many items, whole classes drawn at random."
        ),
    ] = None,
    operating_point: Annotated[
        list[Path] | None, typer.Option(help="Operating point to carry, instead of new ones; repeatable.")
    ] = None,
    target_far: Annotated[float | None, typer.Option(help="FAR of the 1:1 point (default 0.01).")] = None,
    target_fpir: Annotated[float | None, typer.Option(help="FPIR of the 1:N point (default 0.01).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set index.* or calibration.*; repeatable.")
    ] = None,
) -> None:
    """Make a bundle from precomputed embeddings alone, for people who already have vectors."""
    with needs("limen build", "serve"):
        from limen.pipeline.make_bundle import build_from_embeddings
    manifest = build_from_embeddings(
        embeddings,
        out,
        model=model,
        labels=labels,
        sample_items=sample_items,
        point_files=operating_point or [],
        targets=chosen_targets(target_far, target_fpir),
        overrides=set_ or [],
    )
    say(
        f"Bundle in {out}: {manifest.counts.items} items of {manifest.counts.classes} classes. "
        f"Next: limen serve {out}"
    )
