"""``limen train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from common.errors import needs


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; examples are in configs/.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. schedule.epochs=5; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME unless given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Train an embedding network; classes of train, validation and test are disjoint. Writes a run folder."""
    with needs("limen train", "train"):
        from api_schemas.config import Config
        from training.loop.train import train as train_network
    settings = Config.load(config, set_ or [])
    run = train_network(settings, out or Path("runs") / settings.name, resume=resume, track=track, say=say)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this command once for each process
        say(f"Run in {run.path}. Next: limen evaluate {run.path}")
