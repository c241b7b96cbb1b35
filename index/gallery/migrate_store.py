"""The items of a data folder from one database into another, taken once sampled decisions are the same."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import sqlalchemy as sa

from common.errors import BundleError, InputError
from common.file_locks import FolderLock, InUse
from common.progress import Track, silent
from index.bundle import Bundle, read_bundle
from index.gallery.data_folder import BUILT_FILE, DataFolder, open_item_store
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LOCK_FILE
from index.gallery.same_decisions import check_same_decisions
from index.store.databases.database import Database, get_first_line
from index.store.document_store import StoreFailed, StoreInUse, StoreState
from index.store.item_store import DATABASE_FILE, ItemStore
from index.store.open_database import open_database
from index.store.tables import ITEMS, METADATA, SETTINGS, THUMBNAILS, UNKNOWNS, copy_tables

COPIED_FROM = "copied_from"  # setting of a copy: the state of the store it is of
BY_BLOCKS = (ITEMS, THUMBNAILS, UNKNOWNS)  # large, by a text that orders them: copied block by block
ROWS = 2_000
COPY_FILE = f"{DATABASE_FILE}.migrating"
KEPT_FILE = f"{DATABASE_FILE}.migrated"  # the old file, for whoever wants to go back


def migrate_store(
    path: Path,
    folder: Path,
    source: str | None,
    target: str | None,
    queries: int,
    track: Track = silent,
) -> int:
    """Copy all that a store holds into another, and prove it; returns the number of items.

    The old store is left as it is; a SQLite file gets the name ``limen.sqlite.migrated``. A copy that was
    broken off is continued, if nothing was written since.

    Args:
        path: the bundle.
        folder: of the model's items.
        source: address of the database, None for SQLite in the folder.
        target: likewise.

    Raises:
        InputError: both are the same, or the target holds a gallery already.
        StoreInUse: a service writes to the folder.
        DecisionsDiffer: the new store would decide otherwise.
    """
    if source == target:
        raise InputError("The items are in that database already: name another to migrate to.")
    bundle = read_bundle(path)
    with ExitStack() as opened:
        try:
            opened.enter_context(FolderLock(folder, LOCK_FILE))
        except InUse:
            raise StoreInUse(f"{folder} is being written by a service: stop it before migrating.") from None
        if source is None and not (folder / DATABASE_FILE).is_file():
            raise InputError(f"{folder} keeps no items in SQLite: name the database that they are in.")
        old = open_item_store(folder, bundle.manifest.model_hash, source, read_only=True)
        with _open_gallery(bundle, folder, old) as before:
            place = _locate(folder, target, bundle)
            new = open_database(*place)
            opened.callback(new.engine.dispose)
            _copy(old, new, track)
            new.engine.dispose()
            with _open_gallery(bundle, folder, ItemStore(*place, read_only=True)) as after:
                check_same_decisions(before, after, queries, track)
                n = after.n_items
        (folder / BUILT_FILE).unlink(missing_ok=True)  # the new store says which generation it is
        if source is None:
            _rename(folder, DATABASE_FILE, KEPT_FILE)
        if target is None:
            _rename(folder, COPY_FILE, DATABASE_FILE)
    return n


def _locate(folder: Path, database: str | None, bundle: Bundle) -> tuple[Path | str, str | None]:
    """A SQLite file to fill, or the address of a database and the schema there."""
    if database is None:
        return folder / COPY_FILE, None
    return database, f"limen_{bundle.manifest.model_hash[:16]}"


def _open_gallery(bundle: Bundle, folder: Path, store: ItemStore) -> closing[Gallery]:
    try:
        items = DataFolder(bundle, folder, store, follows=True)
        items.check_owner()
        items.catch_up()
        return closing(Gallery(bundle, items))
    except BaseException:
        store.close()
        raise


def _copy(old: ItemStore, new: Database, track: Track) -> None:
    """Copy all that a store holds; what an earlier call copied of the same state stays."""
    try:
        with old.database.engine.connect() as reading:
            _copy_rows(reading, old, new, track)
    except sa.exc.DBAPIError as error:
        raise StoreFailed(
            f"{old.database} could not be copied into {new}: {get_first_line(error)}. Run the command "
            "again: it continues."
        ) from error


def _copy_rows(reading: sa.Connection, old: ItemStore, new: Database, track: Track) -> None:
    state, of = _read_state(reading), old.read_state()
    with new.engine.connect().execution_options(writes=True) as writing:
        with writing.begin():
            held = _read_settings(writing)
            if "model_hash" in held:
                if held.get(COPIED_FROM) == state and held.get("newest", "0") == str(of.newest):
                    return  # an earlier call came this far
                raise InputError(
                    f"{new} holds a gallery of this model already: remove it there, or name another database."
                )
            if held.get(COPIED_FROM) != state:
                for table in reversed(METADATA.sorted_tables):
                    writing.execute(table.delete())
                writing.execute(SETTINGS.insert().values(name=COPIED_FROM, value=state))
        for table in BY_BLOCKS:
            _copy_blocks(reading, writing, table, track)
        with writing.begin():
            rest = [table for table in METADATA.sorted_tables if table not in BY_BLOCKS]
            copy_tables(reading, writing, rest)
            _check_counts(reading, writing, new)
            with old.database.engine.connect() as later:
                if _read_state(later) != state:
                    raise StoreFailed(
                        f"{old.database} was written to while it was copied: stop every service that uses "
                        "it, and run the command again."
                    )
            _name_generation(writing, of, state)


def _copy_blocks(reading: sa.Connection, writing: sa.Connection, table: sa.Table, track: Track) -> None:
    """Copy what is missing of a table, a block in a transaction, in the order of its ids."""
    key = table.c.id
    with writing.begin():
        last = writing.execute(sa.select(sa.func.max(key))).scalar()
        done = int(writing.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
    total = int(reading.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
    rows = sa.select(*table.columns).order_by(key)
    for _ in track(range(0, total - done, ROWS), f"{table.name} copied", -(-(total - done) // ROWS)):
        wanted = rows if last is None else rows.where(key > last)
        block = [dict(row) for row in reading.execute(wanted.limit(ROWS)).mappings()]
        with writing.begin():
            writing.execute(table.insert(), block)
        last = block[-1]["id"]


def _check_counts(reading: sa.Connection, writing: sa.Connection, new: Database) -> None:
    for table in METADATA.sorted_tables:
        count = sa.select(sa.func.count()).select_from(table)
        had, has = (connection.execute(count).scalar_one() for connection in (reading, writing))
        if had != has:
            raise BundleError(
                f"{new} has {has} rows in {table.name}, the old store has {had}: nothing was switched."
            )


def _name_generation(writing: sa.Connection, of: StoreState, state: str) -> None:
    """Name the generation that the old store's gallery searches, whose files are in the folder."""
    named = {"generation": of.generation, "sequence": str(of.base), COPIED_FROM: state}
    writing.execute(SETTINGS.delete().where(SETTINGS.c.name.in_(list(named))))
    rows = [{"name": name, "value": value} for name, value in named.items() if value is not None]
    writing.execute(SETTINGS.insert(), rows)


def _read_settings(connection: sa.Connection) -> dict[str, str]:
    rows = connection.execute(sa.select(SETTINGS.c.name, SETTINGS.c.value))
    return {row.name: row.value for row in rows}


def _read_state(connection: sa.Connection) -> str:
    """What tells whether anything was written in between."""
    counts = [
        str(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
        for table in METADATA.sorted_tables
    ]
    settings = _read_settings(connection)
    if "model_hash" not in settings:
        raise InputError(
            "The database holds no items of this model: check its address, and whose bundle it is."
        )
    return " ".join([settings["model_hash"][:16], settings.get("newest", "0"), *counts])


def _rename(folder: Path, old: str, new: str) -> None:
    """Rename a SQLite file with those of its log."""
    for ending in ("-wal", "-shm", ""):
        file = folder / f"{old}{ending}"
        if file.exists():
            file.rename(folder / f"{new}{ending}")
