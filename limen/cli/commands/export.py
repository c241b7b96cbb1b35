"""``limen export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.choices import EncoderPrecision
from common.console import say, track
from common.errors import ConfigError, needs
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
    size: Annotated[
        int | None, typer.Option(help="One of model.sizes: the first so many numbers as the embedding.")
    ] = None,
    exit_: Annotated[
        int | None, typer.Option("--exit", help="One of model.exits: the network up to that block.")
    ] = None,
    gallery_of: Annotated[
        Path | None,
        typer.Option(help="An older model's bundle: its gallery is kept, points hold for new queries."),
    ] = None,
    thumbnails: Thumbnails = None,
    set_: SetBundleKeys = None,
) -> None:
    """Make a bundle from a run: encoder as ONNX, vectors in an index, report, operating points."""
    with needs("limen export", "train"):
        from decision.targets import select_given_targets
        from embeddings.files import read_embeddings
        from limen.pipeline.evaluation_source import open_run
        from limen.pipeline.make_bundle import describe_bundle, export_run
        from limen.pipeline.point_options import PointOptions
    opened = open_run(run)
    if size is not None and exit_ is not None:
        raise ConfigError("--size and --exit: an exit has embeddings of the whole length: give one of both.")
    if size is not None or exit_ is not None:
        from training.run_folder.several_sizes import open_exit, open_size

        opened = opened if exit_ is None else open_exit(opened, exit_, track)
        opened = opened if size is None else open_size(opened, size)
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
        gallery_of=gallery_of,
    )
    say(describe_bundle(manifest, out))
