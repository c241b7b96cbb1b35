"""``limen opis``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from common.choices import UNNAMED
from common.console import say, track
from common.progress import silent


def opis(
    source: Annotated[Path, typer.Argument(help="A run folder, or an embeddings file (.npz, .parquet).")],
    exchange: Annotated[
        Path | None, typer.Option(help="Folder that all processes see, where there are several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the figures and counts, as .npz.")] = None,
) -> None:
    """Measure OPIS over all pairs, in as many processes as a launcher starts: the same to the last bit.

    `torchrun --standalone --no-python --nproc-per-node 4 limen opis vectors.npz --exchange /tmp/opis`
    """
    import numpy as np

    from evaluation.pairs.pairs import arrange
    from evaluation.sharding.exchange import FolderExchange
    from evaluation.sharding.sharded_opis import measure_sharded_opis
    from limen.pipeline.evaluation_source import open_source

    process = FolderExchange.from_environment(os.environ, exchange)
    is_first = process.rank == 0
    items = open_source(source, UNNAMED).items
    measured = measure_sharded_opis(arrange(items), process, track=track if is_first else silent)
    process.close()
    if not is_first:
        return
    if out is not None:
        np.savez(
            out,
            thresholds=np.concatenate([measured.grid.uniform, measured.grid.log_far]),
            genuine=measured.genuine,
            impostor=measured.impostor,
        )
        say(f"Counts of every class at every threshold in {out}.")
    figures = {"opis": measured.opis, "opis_logfar": measured.opis_logfar, "processes": process.count}
    typer.echo(json.dumps({"items": len(items), "classes": len(items.classes), **figures}))
