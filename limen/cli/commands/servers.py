"""``limen prepare-database`` and ``milvus-collections``: what is kept on servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say
from common.errors import needs


def prepare_database(
    database: Annotated[
        str,
        typer.Option(
            "--database-url",
            envvar="LIMEN_DATABASE_URL",
            help="The PostgreSQL that services keep their items in.",
        ),
    ],
) -> None:
    """Make the tables of a PostgreSQL database, or bring them to the newest form, before services start.

    A service does the same when it starts; this is for those that start several at once. Services of an
    older version must be stopped.
    """
    with needs("limen prepare-database", "postgres"):
        from index.store.prepare_server import prepare_server
    names = prepare_server(database)
    models = f"the items of {len(names) - 1} models" if len(names) > 1 else "no model yet"
    say(f"The database is of this version: {names[0]} and {models}. Next: limen serve BUNDLE --data DIR")


def milvus_collections(
    folders: Annotated[
        list[Path],
        typer.Argument(help="All bundles and data folders in use, or folders of them.", show_default=False),
    ],
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the collections that none of the folders names.")
    ] = False,
) -> None:
    """List the collections in Milvus with the folder that names each; remove those that none names.

    Deleting a bundle leaves its collection on the server. One that was removed by mistake is loaded again
    when its bundle is opened next.
    """
    with needs("limen milvus-collections", "milvus"):
        from index.engines.milvus.unnamed_collections import list_collections, remove_collection
    known = list_collections(folders)
    for name, folder in known:
        typer.echo(f"{name}\t{'-' if folder is None else folder}")
    unnamed = [name for name, folder in known if folder is None]
    if remove:
        for name in unnamed:
            remove_collection(name)
        say(f"{len(unnamed)} of {len(known)} collections were removed.")
    elif unnamed:
        say(
            f"{len(unnamed)} of {len(known)} collections are named by none of these folders. Next: the same "
            "with --remove, if no bundle elsewhere needs them."
        )
