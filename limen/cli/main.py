"""``limen``: the command line; its commands are files of ``limen.cli.commands``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from common.errors import LimenError


class Entry(NamedTuple):
    """A command in the list: its file in limen.cli.commands, and the sentence its help begins with."""

    file: str
    sentence: str


# a new command is a file and an entry here: the file is imported when the command is run, not before
COMMANDS = {
    "demo": Entry(
        "demo",
        "Train, evaluate, calibrate, export and serve: some 900 characters in the typefaces of matplotlib.",
    ),
    "init": Entry("encoders", "Look at your data and write a commented configuration to start from."),
    "data": Entry("data", "Check a data set before training on it, see what the network sees, audit labels."),
    "train": Entry(
        "train",
        "Train an embedding network; classes of train, validation and test are disjoint. "
        "Writes a run folder.",
    ),
    "embed": Entry(
        "encoders",
        "Embed more data with a run's network or a bundle's encoder, e.g. for `--gallery` or `--unknown`.",
    ),
    "evaluate": Entry(
        "evaluate",
        "Measure retrieval, verification, identification and how evenly one threshold holds over classes.",
    ),
    "opis": Entry(
        "evaluate",
        "Measure OPIS over all pairs, in as many processes as a launcher starts: the same to the last bit.",
    ),
    "calibrate": Entry(
        "calibrate",
        "Choose a threshold for a target, and show what it does: proven by an upper bound, or estimated.",
    ),
    "compare": Entry(
        "compare",
        "Compare two models on the same items: paired differences, decisions that flip, compatibility.",
    ),
    "export": Entry(
        "export", "Make a bundle from a run: encoder as ONNX, vectors in an index, report, operating points."
    ),
    "build": Entry("build", "Make a bundle from precomputed embeddings alone."),
    "wrap": Entry(
        "encoders",
        "Make a bundle from an encoder that exists and your data: embedded, calibrated, ready to serve.",
    ),
    "attach-encoder": Entry(
        "encoders",
        "Give a bundle of vectors the encoder that made them, so that it takes images, recordings or texts.",
    ),
    "serve": Entry(
        "serve",
        "Serve a bundle over HTTP: search, match, verify, the dashboard at /dashboard, docs at /docs.",
    ),
    "verify": Entry(
        "verify", "Check a bundle: every checksum, the schema, and that every stored row finds itself."
    ),
    "keys": Entry("keys", "Create, list and revoke the API keys of a service."),
    "feedback": Entry("feedback", "What people said about decisions, for the next training."),
    "rebuild": Entry(
        "data_folder", "Rebuild the index of a data folder from its items; no service may be using it."
    ),
    "backup": Entry(
        "data_folder",
        "Copy items, vectors, operating points and feedback of a data folder, even while it is served.",
    ),
    "restore": Entry("data_folder", "Make a data folder from a backup; every file is checked."),
    "migrate": Entry(
        "data_folder",
        "Change the engine of a bundle or data folder, or the database of its items; services must be "
        "stopped.",
    ),
    "prepare-database": Entry(
        "data_folder",
        "Make the tables of a PostgreSQL database, or bring them to the newest form, before services start.",
    ),
    "milvus-collections": Entry(
        "data_folder",
        "List the collections in Milvus with the folder that names each; remove those that none names.",
    ),
    "mine": Entry(
        "methods",
        "Find hard negatives of every item, without those that may be positives in truth, to train on.",
    ),
    "losses": Entry("methods", "List the losses: name, paper, parameters with their defaults."),
    "miners": Entry("methods", "List the miners: name, paper, parameters with their defaults."),
}


class LazyCommands(Mapping[str, TyperCommand | TyperGroup]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> TyperCommand | TyperGroup:
        module = import_module(f"limen.cli.commands.{COMMANDS[name].file}")
        host = typer.Typer(rich_markup_mode=None)
        if hasattr(module, "app"):  # a group of commands
            host.add_typer(module.app, name=name)
        else:
            host.command(name)(getattr(module, name.replace("-", "_")))
        command = typer.main.get_group(host).commands[name]
        assert isinstance(command, TyperCommand | TyperGroup)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """``limen``: lists its commands without importing them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = LazyCommands()  # type: ignore[assignment]  # nothing is ever added

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name and first sentence of every command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.sentence) for name, entry in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="limen",
    epilog="Start with `limen demo`. Every command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 110},
    rich_markup_mode=None,  # plain text: what colours it takes longer to import than all else
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        typer.echo(f"limen {metadata.version('limen')}")
        raise typer.Exit


@app.callback()
def limen(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train embeddings, measure how evenly one threshold holds, freeze it with its proof, serve it."""


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
