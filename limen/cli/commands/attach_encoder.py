"""``limen attach-encoder``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say
from common.errors import needs
from limen.cli.options import EncoderInput, EncoderOutput, PreprocessingOption, SetBundleKeys


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
    """Give a bundle of vectors the encoder that made them, so that it takes images or texts."""
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
