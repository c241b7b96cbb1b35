"""``limen keys``: who may use a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.optional_packages import needs

app = typer.Typer(help="Keys of a service: create, list, revoke.", no_args_is_help=True)
File = Annotated[
    Path,
    typer.Option("--file", envvar="LIMEN_API_KEYS_FILE", help="The file of keys that the service reads."),
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is; two keys of one name rotate.")],
    scope: Annotated[Literal["read", "write", "admin"], typer.Option(help="What it allows.")] = "read",
    file: File = Path("keys.json"),
) -> None:
    """Make a key and print it once; the file keeps its hash alone."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import create_key
    typer.echo(create_key(file, name, scope))


@app.command(name="list")
def list_keys(file: File = Path("keys.json")) -> None:
    """Names, scopes and dates of the keys."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import KeyFile
    for key in KeyFile.load(file).keys:
        typer.echo(f"{key.name}\t{key.scope}\t{key.created_at:%Y-%m-%d}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="All keys of this name end at once.")],
    file: File = Path("keys.json"),
) -> None:
    """Remove the keys of a name; a running service notices."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import revoke_keys
    typer.echo(f"{revoke_keys(file, name)} removed")
