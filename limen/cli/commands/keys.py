"""``limen keys``: create, list and revoke the API keys of a service."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.errors import InputError, needs

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
    requests_per_second: Annotated[
        float | None, typer.Option(help="Requests that it may send a second, on average.", min=0.001, max=1e6)
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(
            help="Requests at once after a pause; those of a second unless given.", min=1, max=10**6
        ),
    ] = None,
    items_per_day: Annotated[
        int | None, typer.Option(help="Items that it may write a day.", min=1, max=10**9)
    ] = None,
) -> None:
    """Create a key and print it once; the file or database keeps its hash only."""
    with needs("limen keys", "serve"):
        from index.store.shared.records import SharedRecords
        from service.auth.api_keys import create_key
        from service.auth.key_limits import KeyLimits
        from service.auth.shared_keys import create_shared_key
    if burst is not None and requests_per_second is None:
        raise InputError("--burst says how uneven --requests-per-second may be: give that, too.")
    limits = None
    if requests_per_second is not None or items_per_day is not None:
        limits = KeyLimits(requests_per_second=requests_per_second, burst=burst, items_per_day=items_per_day)
    if database is None:
        typer.echo(create_key(file, name, scope, limits))
        return
    with closing(SharedRecords(database)) as shared:
        typer.echo(create_shared_key(shared, name, scope, limits))


@app.command(name="list")
def list_keys(file: File = Path("keys.json"), database: Database = None) -> None:
    """List names, scopes, dates and limits of the keys."""
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
        limits = {} if key.limits is None else key.limits.model_dump(exclude_none=True)
        shown = "".join(f"\t{name}={value:g}" for name, value in limits.items())
        typer.echo(f"{key.name}\t{key.scope}\t{key.created_at:%Y-%m-%d}{shown}")


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
