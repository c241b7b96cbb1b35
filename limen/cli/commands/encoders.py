"""``limen init``, ``wrap``, ``attach-encoder``, ``embed``: what is done with encoders that exist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.console import say, track
from common.errors import InputError, needs
from limen.cli.options import (
    BundleOut,
    EncoderInput,
    EncoderOutput,
    PointFiles,
    PreprocessingOption,
    SetBundleKeys,
    TargetFar,
    TargetFpir,
    Thumbnails,
)
from limen.cli.point_flags import NO_FLAGS, PointFlags, takes_point_flags

if TYPE_CHECKING:
    from embeddings.embedding_set import EmbeddingSet


def init(
    recipe: Annotated[
        Literal["photos", "faces", "text", "pairs", "audio", "vectors"],
        typer.Argument(help="What the data is."),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            help="The data: a folder or zip of class folders, a list, texts (.jsonl), vectors (.npz, .npy)."
        ),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="An encoder that exists, as `limen wrap` takes it, or a bundle that it made, to train a "
            "head on; without one the working directory is looked through."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; RECIPE.yaml or RECIPE-head.yaml unless given.")
    ] = None,
) -> None:
    """Look at your data and write a commented configuration to start from."""
    with needs("limen init", "serve"):
        from limen.pipeline.init_config import init_config
    say(init_config(recipe, data, out, encoder))


@takes_point_flags
def wrap(
    encoder: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, a token table (.safetensors), a folder of sentence-transformers, hf:NAME or "
            "timm:NAME; or a configuration (.yaml) that names encoder and data."
        ),
    ],
    out: BundleOut,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder or zip of class folders of images or recordings, a list of those or of texts "
            "(.csv, .jsonl, .parquet), vectors (.npz); repeatable. All of it is the gallery."
        ),
    ] = None,
    preprocessing: PreprocessingOption = None,
    input_: EncoderInput = None,
    output: EncoderOutput = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; that of its folder if not given.")
    ] = None,
    thumbnails: Thumbnails = None,
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
    set_: SetBundleKeys = None,
) -> None:
    """Make a bundle from an encoder that exists and your data: embedded, calibrated, ready to serve."""
    with needs("limen wrap", "serve"):
        from decision.targets import select_given_targets
        from limen.pipeline.make_bundle import describe_bundle
        from limen.pipeline.point_options import PointOptions
        from limen.pipeline.wrap_encoder import build_config, wrap_encoder
    config = build_config(
        encoder,
        data=data,
        preprocessing=preprocessing,
        input_name=input_,
        output_name=output,
        name=name,
        overrides=set_ or [],
    )
    manifest = wrap_encoder(
        config,
        out,
        sample_items=sample_items,
        thumbnails=thumbnails,
        point_files=operating_point or [],
        targets=select_given_targets(target_far, target_fpir),
        options=PointOptions.read(**flags),
    )
    say(describe_bundle(manifest, out))


def attach_encoder(
    bundle: Annotated[Path, typer.Argument(help="A bundle of vectors, made by `limen build`.")],
    encoder: Annotated[str, typer.Argument(help="The encoder that made them, as `limen wrap` takes it.")],
    data: Annotated[
        list[str],
        typer.Option(help="The data that the vectors were made of, or a part of it, with the same ids."),
    ],
    preprocessing: PreprocessingOption = None,
    input_: EncoderInput = None,
    output: EncoderOutput = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=2, help="Largest L2 distance of a stored vector and the encoder's."),
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="Another folder for the bundle; its own unless given.")
    ] = None,
    set_: SetBundleKeys = None,
) -> None:
    """Give a bundle of vectors the encoder that made them, so that it takes images, recordings or texts."""
    with needs("limen attach-encoder", "serve"):
        from limen.pipeline import attach_encoder as pipeline
        from limen.pipeline.wrap_encoder import build_config
    config = build_config(
        encoder,
        data=data,
        preprocessing=preprocessing,
        input_name=input_,
        output_name=output,
        overrides=set_ or [],
    )
    pipeline.attach_encoder(bundle, config, out, tolerance)
    say(f"{out or bundle} has its encoder. Next: limen serve {out or bundle}")


def embed(
    source: Annotated[
        Path, typer.Argument(help="A run folder, the --out of `limen train`, or a bundle with an encoder.")
    ],
    data: Annotated[
        Path, typer.Argument(help="The data to embed: of a run in a form that its configuration could name.")
    ],
    out: Annotated[Path, typer.Option(help="The embeddings file, .npz.")],
    role: Annotated[
        Literal["query", "item"] | None,
        typer.Option(
            help="What all of the data is, where queries have a tower of their own; else as data.role_column "
            "says, of a bundle items."
        ),
    ] = None,
) -> None:
    """Embed more data with a run's network or a bundle's encoder, e.g. for `--gallery` or `--unknown`."""
    from embeddings.files import save_embeddings
    from limen.pipeline.evaluation_source import is_bundle

    if out.suffix != ".npz":
        raise InputError(f"--out {out}: embeddings are written as .npz.")
    embed_with = _embed_with_bundle if is_bundle(source) else _embed_with_run
    items = embed_with(source, data, role)
    save_embeddings(items, out)
    say(f"{len(items)} items of {len(items.classes)} labels in {out}.")


def _embed_with_run(run: Path, data: Path, role: str | None) -> EmbeddingSet:
    from limen.pipeline.evaluation_source import open_run

    opened = open_run(run)
    with needs("limen embed", "train"):
        from encoder.encoder import Encoder
        from training.data.load_data import load_items
        from training.export.onnx_export import embed_items
    settings, encoder = opened.config.data, Encoder.open(opened.ensure_encoder(), threads=0)
    if role is not None:
        settings = settings.model_copy(update={"role_column": None})
        encoder = encoder.queries if role == "query" else encoder
    items = load_items([data], settings, opened.load_preprocessing(), track, say)
    return embed_items(encoder, items, track)


def _embed_with_bundle(bundle: Path, data: Path, role: str | None) -> EmbeddingSet:
    with needs("limen embed", "serve"):
        from limen.pipeline.embed_data import embed_with_bundle
    return embed_with_bundle(bundle, data, asks=role == "query")
