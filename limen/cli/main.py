"""``limen``: the command line. Each command lives in its own file of ``limen.cli.commands``."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from common.errors import LimenError
from limen.cli.commands import (
    build,
    calibrate,
    compare,
    data,
    data_folder,
    demo,
    embed,
    evaluate,
    export,
    keys,
    list_registries,
    serve,
    train,
    verify,
)

app = typer.Typer(
    name="limen",
    epilog="Start with `limen demo`. Every command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"limen {metadata.version('limen')}")
        raise typer.Exit


@app.callback()
def limen(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train embeddings, measure how evenly ONE threshold holds, freeze it with its proof, serve it."""


app.command()(demo.demo)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(embed.embed)
app.command()(evaluate.evaluate)
app.command()(calibrate.calibrate)
app.command()(compare.compare)
app.command()(export.export)
app.command()(build.build)
app.command()(serve.serve)
app.command()(verify.verify)
app.add_typer(keys.app, name="keys")
app.command()(data_folder.rebuild)
app.command()(data_folder.backup)
app.command()(data_folder.restore)
app.command()(list_registries.losses)
app.command()(list_registries.miners)


def main() -> None:
    """Run the command line; bad input ends with one sentence on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        if sentence := error.format_message():  # empty when the help was shown instead
            print(f"limen: {sentence}", file=sys.stderr)  # noqa: T201
        code = 2
    except LimenError as error:
        print(f"limen: {error}", file=sys.stderr)  # noqa: T201
        code = 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"limen: {place}{error.strerror or error}.", file=sys.stderr)  # noqa: T201
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        print("limen: interrupted.", file=sys.stderr)  # noqa: T201
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
