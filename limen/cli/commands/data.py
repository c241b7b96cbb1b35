"""``limen data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api_schemas.config import Config
from api_schemas.yaml_config import validate_mapping
from common.console import say, track
from common.errors import needs

app = typer.Typer(help="Check a data set before training on it.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Check a data set before training on it."""


@app.command()
def check(
    source: Annotated[
        Path,
        typer.Argument(
            help="The configuration that would be trained (.yaml), or data alone: a folder or zip of images, "
            "a list of them, texts (.jsonl), vectors (.npz, .npy)."
        ),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. data.kind=table; repeatable.")
    ] = None,
) -> int:
    """Read a data set as training would: classes, sizes, exact and near duplicates, leakage, imbalance.

    The exit code is 1 if something is likely to spoil training or its figures.
    """
    with needs("limen data check", "train"):
        from training.data.check_data import check_data
        from training.data.kinds import guess_kind
    if source.suffix in (".yaml", ".yml"):
        config = Config.load(source, set_ or [])
    else:
        data = {"kind": guess_kind(source), "path": str(source)}
        config = validate_mapping(Config, {"data": data}, set_ or [], "--set")
    findings = check_data(config.data, track, say)
    for finding in findings:
        typer.echo(f"{'WARNING ' if finding.warns else ''}{finding.sentence}")
    return int(any(finding.warns for finding in findings))
