"""``limen init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.console import say
from common.errors import needs


def init(
    recipe: Annotated[Literal["photos", "text"], typer.Argument(help="What the data is.")],
    data: Annotated[
        list[str], typer.Argument(help="The data: a folder or zip of class folders, a list, texts (.jsonl).")
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="An encoder that exists, as `limen wrap` takes it; without one the working directory is "
            "looked through."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; photos.yaml or text.yaml.")] = None,
) -> None:
    """Look at your data and write a commented configuration to start from."""
    with needs("limen init", "serve"):
        from limen.pipeline.init_config import init_config
    say(init_config(recipe, data, out or Path(f"{recipe}.yaml"), encoder))
