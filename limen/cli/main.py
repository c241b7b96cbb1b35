"""``limen``: the command line; its commands are files of ``limen.cli.commands``."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Annotated

import typer

from common.errors import LimenError

# each command and its file in limen.cli.commands; a new command is a file and a line here
COMMANDS = {
    "demo": "demo",
    "init": "encoders",
    "data": "data",
    "train": "train",
    "embed": "encoders",
    "evaluate": "evaluate",
    "calibrate": "calibrate",
    "compare": "compare",
    "export": "export",
    "build": "build",
    "wrap": "encoders",
    "attach_encoder": "encoders",
    "serve": "serve",
    "verify": "verify",
    "keys": "keys",
    "feedback": "feedback",
    "rebuild": "data_folder",
    "backup": "data_folder",
    "restore": "data_folder",
    "migrate": "data_folder",
    "mine": "methods",
    "losses": "methods",
    "miners": "methods",
}

app = typer.Typer(
    name="limen",
    epilog="Start with `limen demo`. Every command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"limen {metadata.version('limen')}")
        raise typer.Exit


@app.callback()
def limen(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train embeddings, measure how evenly one threshold holds, freeze it with its proof, serve it."""


for _name, _file in COMMANDS.items():
    _module = import_module(f"limen.cli.commands.{_file}")
    if hasattr(_module, "app"):  # a group of commands
        app.add_typer(_module.app, name=_name)
    else:
        app.command()(getattr(_module, _name))


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
        where = f"{error.filename}: " if error.filename else ""
        print(f"limen: {where}{error.strerror or error}.", file=sys.stderr)  # noqa: T201
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        print("limen: interrupted.", file=sys.stderr)  # noqa: T201
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
