"""``limen embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from common.errors import InputError, needs
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from limen.pipeline.evaluation_source import is_bundle, open_run


def embed(
    source: Annotated[
        Path, typer.Argument(help="A run folder, the --out of `limen train`, or a bundle with an encoder.")
    ],
    data: Annotated[
        Path, typer.Argument(help="The data to embed: of a run in a form that its configuration could name.")
    ],
    out: Annotated[Path, typer.Option(help="The embeddings file, .npz.")],
) -> None:
    """Embed more data with a run's network or a bundle's encoder, e.g. for `--gallery` or `--unknown`."""
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: embeddings are written as .npz.")
    items = _embed_with_bundle(source, data) if is_bundle(source) else _embed_with_run(source, data)
    save_embeddings(items, out)
    say(f"{len(items)} items of {len(items.classes)} labels in {out}.")


def _embed_with_run(run: Path, data: Path) -> EmbeddingSet:
    opened = open_run(run)
    with needs("limen embed", "train"):
        from encoder.encoder import Encoder
        from training.data.load_data import load_items
        from training.export.onnx_export import embed_items
    items = load_items([data], opened.config.data, opened.load_preprocessing(), track, say)
    return embed_items(Encoder.open(opened.ensure_encoder(), threads=0), items, track)


def _embed_with_bundle(bundle: Path, data: Path) -> EmbeddingSet:
    with needs("limen embed", "serve"):
        from limen.pipeline.embed_data import embed_with_bundle
    return embed_with_bundle(bundle, data)
