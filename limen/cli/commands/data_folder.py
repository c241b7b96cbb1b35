"""``limen rebuild``, ``backup``, ``restore``, ``migrate``, and what is on servers: care of data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from common.errors import BundleError, InputError, needs
from common.private_files import make_private_folder

Data = Annotated[Path, typer.Argument(help="The data folder that `limen serve --data` writes.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="The database of the items, if the service keeps them in PostgreSQL.",
        envvar="LIMEN_DATABASE_URL",
    ),
]


def rebuild(
    bundle: Annotated[Path, typer.Argument(help="The bundle the data folder belongs to.")],
    data: Data,
    database: Database = None,
) -> None:
    """Rebuild the index of a data folder from its items; no service may be using it."""
    with needs("limen rebuild", "serve"):
        from index.gallery.live_gallery import LiveGallery
        from service.models.loaded_model import find_items_folder
    items = find_items_folder(bundle, data)
    if not (items / _get_marker(database)).is_file():
        raise InputError(
            f"{data} holds no items of {bundle}: nothing was written there by `limen serve --data`."
        )
    with LiveGallery.open(bundle, items, track=track, database=database) as live:
        live.rebuild(track)
        say(f"{data} holds a new index of {live.gallery.n_items} items.")


def backup(
    data: Data,
    out: Annotated[Path, typer.Argument(help="A new folder for the backup.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Whose items, where the data folder holds those of several models.")
    ] = None,
    database: Database = None,
) -> None:
    """Copy items, vectors, operating points and feedback of a data folder, even while it is served."""
    with needs("limen backup", "serve"):
        from index.gallery.backup import write_backup
        from index.gallery.data_folder import open_item_store
        from service.models.loaded_model import find_items_folder
    folder = find_only_model(data, database) if bundle is None else find_items_folder(bundle, data)
    if database is None:
        write_backup(folder, out)
    else:
        with closing(open_item_store(folder, folder.name, database, read_only=True)) as store:
            write_backup(folder, out, store)
    say(f"Backup in {out}. Next, when needed: limen restore {out} NEW_DATA_FOLDER")


def restore(
    backup_folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder made by `limen backup`.")],
    data: Annotated[Path, typer.Argument(help="A data folder that holds no items of that model yet.")],
) -> None:
    """Make a data folder from a backup; every file is checked."""
    with needs("limen restore", "serve"):
        from index.gallery.backup import BACKUP_FILE, BackupRecord, restore_backup
        from service.models.loaded_model import MODELS_FOLDER, get_model_folder_name
    try:
        record = BackupRecord.load(backup_folder / BACKUP_FILE)
    except InputError as error:
        raise BundleError(f"{backup_folder} is not a backup: {error}") from None
    models = data / MODELS_FOLDER
    make_private_folder(data)
    make_private_folder(models)
    restore_backup(backup_folder, models / get_model_folder_name(record.model_hash))
    say(f"{data} is ready. Next: limen serve BUNDLE --data {data}")


def migrate(
    bundle: Annotated[Path, typer.Argument(help="The bundle that is served.")],
    out: Annotated[
        Path | None, typer.Option(help="Write a bundle with another engine here; with --set.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data folder whose engine or database changes.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="The new engine, e.g. index.kind=milvus; repeatable.")
    ] = None,
    database: Database = None,
    to_database: Annotated[
        str | None, typer.Option(help="Move the items of --data into this PostgreSQL database.")
    ] = None,
    to_sqlite: Annotated[
        bool, typer.Option("--to-sqlite", help="Move the items of --data into SQLite in that folder.")
    ] = False,
    queries: Annotated[
        int, typer.Option(min=1, help="Sampled queries that must be decided alike before the switch.")
    ] = 10_000,
) -> None:
    """Change the engine of a bundle or data folder, or the database of its items; services must be stopped.

    Nothing is switched unless sampled queries are decided alike, to the last bit. A run that was broken off
    is continued by the same command.
    """
    with needs("limen migrate", "serve"):
        from api_schemas.build_config import BuildConfig
        from index.gallery.migrate_engine import migrate_bundle, migrate_data_folder
        from index.gallery.migrate_store import migrate_store
        from service.models.loaded_model import find_items_folder
    moves = to_database is not None or to_sqlite
    if (out is None) == (data is None) or bool(set_) == moves or (moves and data is None):
        raise InputError(
            "Say what to migrate: --out NEW_BUNDLE or --data DIR with --set index.kind=..., or --data DIR "
            "with --to-database or --to-sqlite."
        )
    config = BuildConfig.from_overrides(set_ or []).index
    alike = f"{queries} sampled queries were decided alike"
    if out is not None:
        migrated = migrate_bundle(bundle, out, config, queries, track)
        say(f"{out} searches with {migrated.index.kind}; {alike}. Next: limen serve {out}")
        return
    assert data is not None
    items = find_items_folder(bundle, data)
    if not (items / _get_marker(database)).is_file():
        raise InputError(
            f"{data} holds no items of {bundle}: nothing was written there by `limen serve --data`."
        )
    if set_:
        n = migrate_data_folder(bundle, items, config, queries, track, database)
        say(f"{data} searches its {n} items with {config.kind}; {alike}.")
        return
    n = migrate_store(bundle, items, database, to_database, queries, track)
    where = "unset LIMEN_DATABASE_URL" if to_sqlite else "set LIMEN_DATABASE_URL to the new address"
    say(f"{n} items were copied; {alike}. What the old database holds stays there. Next: {where}, and serve.")


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


def _get_marker(database: str | None) -> str:
    """The file whose presence shows that a folder holds a model's items."""
    from index.gallery.live_gallery import LOCK_FILE
    from index.store.item_store import DATABASE_FILE

    return DATABASE_FILE if database is None else LOCK_FILE


def find_only_model(data: Path, database: str | None) -> Path:
    """The folder of the one model in a data folder; raises InputError for none or several."""
    from service.models.loaded_model import MODELS_FOLDER

    folders = [file.parent for file in sorted(data.glob(f"{MODELS_FOLDER}/*/{_get_marker(database)}"))]
    if not folders:
        raise InputError(f"{data} is not a data folder: nothing was written there by `limen serve --data`.")
    if len(folders) > 1:
        raise InputError(f"{data} holds items of {len(folders)} models: say whose with --bundle.")
    return folders[0]
