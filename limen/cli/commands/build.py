"""``limen build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.choices import LARGEST_THUMBNAIL, SMALLEST_THUMBNAIL, UNNAMED
from common.console import say
from common.errors import needs
from limen.cli.options import (
    BundleOut,
    PointFiles,
    SetBundleKeys,
    TargetFar,
    TargetFpir,
)
from limen.cli.point_flags import NO_FLAGS, PointFlags, takes_point_flags


@takes_point_flags
def build(
    embeddings: Annotated[
        Path, typer.Argument(help="An embeddings file (.npz, .npy, .parquet); all rows are the gallery.")
    ],
    out: BundleOut,
    model: Annotated[str, typer.Option(help="Name of the model that made the vectors.")] = UNNAMED,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels of a .npy file: a .npy, or a .parquet, .csv or .jsonl with ids and metadata."
        ),
    ] = None,
    sample_items: Annotated[
        int | None,
        typer.Option(
            min=2, help="Calibrate and measure on at most so many items, of whole classes drawn at random."
        ),
    ] = None,
    operating_point: PointFiles = None,
    target_far: TargetFar = None,
    target_fpir: TargetFpir = None,
    flags: PointFlags = NO_FLAGS,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the items' pictures, by their column path, else their id: small ones are kept, "
            "for people to look at."
        ),
    ] = None,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_THUMBNAIL,
            max=LARGEST_THUMBNAIL,
            help="Pixels of their longer side; 96 unless given.",
        ),
    ] = None,
    set_: SetBundleKeys = None,
) -> None:
    """Make a bundle from precomputed embeddings alone."""
    with needs("limen build", "serve"):
        from decision.targets import select_given_targets
        from limen.pipeline.make_bundle import build_from_embeddings, describe_bundle
        from limen.pipeline.point_options import PointOptions
    manifest = build_from_embeddings(
        embeddings,
        out,
        model=model,
        labels=labels,
        sample_items=sample_items,
        point_files=operating_point or [],
        targets=select_given_targets(target_far, target_fpir),
        overrides=set_ or [],
        options=PointOptions.read(**flags),
        pictures=pictures,
        thumbnails=thumbnails,
    )
    say(describe_bundle(manifest, out))
