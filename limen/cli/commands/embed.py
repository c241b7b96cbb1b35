"""``limen embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from common.errors import InputError, needs
from embeddings.files import save_embeddings
from limen.pipeline.evaluation_source import open_run


def embed(
    run: Annotated[Path, typer.Argument(help="A run folder, the --out of `limen train`.")],
    data: Annotated[
        Path, typer.Argument(help="The data to embed, in a form that the run's configuration could name.")
    ],
    out: Annotated[Path, typer.Option(help="The embeddings file, .npz.")],
) -> None:
    """Embed more data with a run's network, e.g. for `--gallery` or `--unknown`."""
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: embeddings are written as .npz.")
    opened = open_run(run)
    with needs("limen embed", "train"):
        from encoder.encoder import Encoder
        from training.data.load_data import load_items
        from training.export.onnx_export import embed_items
    items = load_items([data], opened.config.data, opened.load_preprocessing(), track, say)
    save_embeddings(embed_items(Encoder.open(opened.ensure_encoder(), threads=0), items, track), out)
    say(f"{len(items)} items of {items.n_classes} labels in {out}.")
