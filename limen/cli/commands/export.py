"""``limen export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.console import say, track
from common.optional_packages import needs
from decision.targets import chosen_targets
from embeddings.files import read_embeddings


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, the --out of `limen train`.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    gallery: Annotated[
        Path | None, typer.Option(help="Embeddings of the gallery; the run's test items unless given.")
    ] = None,
    operating_point: Annotated[
        list[Path] | None, typer.Option(help="Operating point to carry, instead of new ones; repeatable.")
    ] = None,
    target_far: Annotated[float | None, typer.Option(help="FAR of the 1:1 point (default 0.01).")] = None,
    target_fpir: Annotated[float | None, typer.Option(help="FPIR of the 1:N point (default 0.01).")] = None,
    precision: Annotated[
        Literal["int8", "fp16"] | None,
        typer.Option(help="Lighter encoder weights, int8 or fp16; prints what they cost in recall and FAR."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override index.* or calibration.*; repeatable.")
    ] = None,
) -> None:
    """Make a bundle from a run: encoder as ONNX, vectors in an index, report, operating points."""
    with needs("limen export", "train"):
        from limen.pipeline.evaluation_source import open_run
        from limen.pipeline.make_bundle import export_run
    opened = open_run(run)
    if precision is not None:
        from training.run_folder.quantize import lighter_run

        opened, cost = lighter_run(opened, precision, track)
        say(str(cost))
    manifest = export_run(
        opened,
        out,
        gallery=read_embeddings(gallery) if gallery else None,
        point_files=operating_point or [],
        targets=chosen_targets(target_far, target_fpir),
        overrides=set_ or [],
    )
    say(
        f"Bundle in {out}: {manifest.counts.items} items of {manifest.counts.classes} classes. "
        f"Next: limen serve {out}"
    )
