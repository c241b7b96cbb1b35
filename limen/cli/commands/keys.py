"""``limen keys``: create, list and revoke the API keys of a service."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.errors import needs

app = typer.Typer(help="Create, list and revoke the API keys of a service.", no_args_is_help=True)
File = Annotated[
    Path,
    typer.Option("--file", envvar="LIMEN_API_KEYS_FILE", help="The file of keys that the service reads."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="The PostgreSQL that several services share: keys are kept there, and known to all of them.",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Name of its owner; two keys may have one name, to rotate.")],
    scope: Annotated[
        Literal["read", "write", "admin"], typer.Option(help="What it allows; each includes the one before.")
    ] = "read",
    file: File = Path("keys.json"),
    database: Database = None,
) -> None:
    """Create a key and print it once; the file or database keeps its hash only."""
    with needs("limen keys", "serve"):
        from index.store.shared.records import SharedRecords
        from service.auth.api_keys import create_key
        from service.auth.shared_keys import create_shared_key
    if database is None:
        typer.echo(create_key(file, name, scope))
        return
    with closing(SharedRecords(database)) as shared:
        typer.echo(create_shared_key(shared, name, scope))


@app.command(name="list")
def list_keys(file: File = Path("keys.json"), database: Database = None) -> None:
    """List names, scopes and dates of the keys."""
    with needs("limen keys", "serve"):
        from index.store.shared.records import SharedRecords
        from service.auth.api_keys import KeyFile
        from service.auth.shared_keys import read_shared_keys
    if database is None:
        keys = KeyFile.load(file).keys
    else:
        with closing(SharedRecords(database)) as shared:
            keys = read_shared_keys(shared) or []
    for key in keys:
        typer.echo(f"{key.name}\t{key.scope}\t{key.created_at:%Y-%m-%d}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name whose keys are all revoked.")],
    file: File = Path("keys.json"),
    database: Database = None,
) -> None:
    """Revoke the keys of a name, effective within a second in a running service."""
    with needs("limen keys", "serve"):
        from index.store.shared.records import SharedRecords
        from service.auth.api_keys import revoke_keys
        from service.auth.shared_keys import revoke_shared_keys
    if database is None:
        typer.echo(f"{revoke_keys(file, name)} removed")
        return
    with closing(SharedRecords(database)) as shared:
        typer.echo(f"{revoke_shared_keys(shared, name)} removed")
