"""``limen export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api_schemas.build_config import EncoderPrecision
from common.console import say, track
from common.errors import needs
from decision.targets import select_given_targets
from embeddings.files import read_embeddings
from limen.cli.options import (
    BundleOut,
    PointFiles,
    SetBundleKeys,
    TargetFar,
    TargetFpir,
    Thumbnails,
)
from limen.cli.point_flags import NO_FLAGS, PointFlags, takes_point_flags


@takes_point_flags
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, the --out of `limen train`.")],
    out: BundleOut,
    gallery: Annotated[
        Path | None, typer.Option(help="Embeddings of the gallery; all items of the run unless given.")
    ] = None,
    operating_point: PointFiles = None,
    target_far: TargetFar = None,
    target_fpir: TargetFpir = None,
    flags: PointFlags = NO_FLAGS,
    precision: Annotated[
        EncoderPrecision | None,
        typer.Option(help="Quantise the encoder to int8 or fp16; prints the recall loss and the FAR."),
    ] = None,
    thumbnails: Thumbnails = None,
    set_: SetBundleKeys = None,
) -> None:
    """Make a bundle from a run: encoder as ONNX, vectors in an index, report, operating points."""
    with needs("limen export", "train"):
        from limen.pipeline.evaluation_source import open_run
        from limen.pipeline.make_bundle import describe_bundle, export_run
        from limen.pipeline.point_options import PointOptions
    opened = open_run(run)
    if precision is not None:
        from training.run_folder.quantize import quantize_run

        opened, loss = quantize_run(opened, precision, track)
        say(str(loss))
    manifest = export_run(
        opened,
        out,
        gallery=read_embeddings(gallery, say) if gallery else None,
        point_files=operating_point or [],
        targets=select_given_targets(target_far, target_fpir),
        overrides=set_ or [],
        options=PointOptions.read(**flags),
        thumbnails=thumbnails,
    )
    say(describe_bundle(manifest, out))
