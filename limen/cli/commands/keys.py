"""``limen keys``: create, list and revoke the API keys of a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.errors import needs

app = typer.Typer(help="Create, list and revoke the API keys of a service.", no_args_is_help=True)
File = Annotated[
    Path,
    typer.Option("--file", envvar="LIMEN_API_KEYS_FILE", help="The file of keys that the service reads."),
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Name of its owner; two keys may have one name, to rotate.")],
    scope: Annotated[
        Literal["read", "write", "admin"], typer.Option(help="What it allows; each includes the one before.")
    ] = "read",
    file: File = Path("keys.json"),
) -> None:
    """Create a key and print it once; the file keeps its hash only."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import create_key
    typer.echo(create_key(file, name, scope))


@app.command(name="list")
def list_keys(file: File = Path("keys.json")) -> None:
    """List names, scopes and dates of the keys."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import KeyFile
    for key in KeyFile.load(file).keys:
        typer.echo(f"{key.name}\t{key.scope}\t{key.created_at:%Y-%m-%d}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name whose keys are all revoked.")],
    file: File = Path("keys.json"),
) -> None:
    """Revoke the keys of a name, effective at once in a running service."""
    with needs("limen keys", "serve"):
        from service.auth.api_keys import revoke_keys
    typer.echo(f"{revoke_keys(file, name)} removed")
