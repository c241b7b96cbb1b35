"""The item store on SQLite and on a real PostgreSQL: the same calls, the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from common.errors import BundleError, InputError
from index.gallery.backup import restore_backup
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem
from index.store.databases import DATABASES
from index.store.databases.sqlite import Sqlite
from index.store.document_store import StoreFailed, StoreInUse
from index.store.item_store import THUMBNAILS_FROM, ItemStore
from index.store.tables import AUDIT, COUNTER, FEEDBACK, ID, ITEMS, build_column_types
from index.store.write_order import Withdrawn, WriteOrder
from tests.index import postgres
from tests.index.conftest import MakeBundle, make_items, make_small_config, make_unit_rows

VECTORS = make_unit_rows(np.random.default_rng(0), 8, 4)
IDS = ["b", "B", "a", "ä", "Z", "z", "_", "käse", "😀", "\uffff", "a b", "a%"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL server."""
    with postgres.running() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What a store is opened with."""
    if request.param == "sqlite":
        return {"where": tmp_path / "limen.sqlite"}
    name = f"test_{abs(hash(request.node.name))}"
    return {"where": request.getfixturevalue("server"), "schema": name}


@pytest.fixture
def database(request: pytest.FixtureRequest, where: dict[str, Any]) -> str | None:
    """What a gallery is opened with: a database of its own, for galleries choose the schema."""
    if "schema" not in where:
        return None
    server, name = where["where"], where["schema"]
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(server).replace("/postgres?", f"/{name}?")


def item(name: str, vector: int = 0, **metadata: Any) -> StoredItem:
    return StoredItem(name, "l", VECTORS[vector], metadata)


def test_items_are_kept_as_they_were_and_in_the_order_of_code_points(where: dict[str, Any]) -> None:
    values = {"text": "käse\n'\"", "number": 2**53, "real": 0.1, "yes": True, "none": None}
    with closing(ItemStore(**where)) as store:
        assert store.upsert([item(name, n % 8, **values) for n, name in enumerate(IDS)], "m") == len(IDS)
        assert store.upsert([item("b", 5), item("new")], "m") == 1
    with closing(ItemStore(**where)) as store:
        stored = store.page(None, 100)
        assert [entry.id for entry in stored] == sorted([*IDS, "new"])
        assert [entry.id for entry in store.page("a", 3)] == sorted([*IDS, "new"])[
            sorted([*IDS, "new"]).index("a") + 1 :
        ][:3]
        with store.open_snapshot() as snapshot:
            store.delete(["new"])
            assert (snapshot.sequence, snapshot.n) == (2, len(IDS) + 1)
            assert [[entry.id for entry in block] for block in snapshot.blocks] == [sorted([*IDS, "new"])]
        store.upsert([item("new")], "m")
        stored_item = store.get("käse")
        assert stored_item is not None
        assert dict(stored_item.metadata) == values
        assert np.array_equal(stored_item.vector, VECTORS[IDS.index("käse") % 8])
        assert np.array_equal(store.get("b").vector, VECTORS[5])  # type: ignore[union-attr]
        assert store.get("nobody") is None
        assert (store.count(), store.sequence) == (len(IDS) + 1, 4)
        assert store.fields == {"text": "text", "number": "number", "real": "number", "yes": "boolean"}
        assert store.select_known(["a", "nobody"]) == {"a"}


def test_changes_are_told_until_a_generation_holds_them(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.upsert([item("a"), item("b")], "m")
        assert sorted(store.delete(["b", "nobody", "b"])) == ["b"]
        assert store.delete(["nobody"]) == []
        store.upsert([item("c")], "m")
        state, changes = store.read_changes_after(1, None)
        assert changes is not None
        assert (state, [entry.id for entry in changes.written], changes.touched) == (
            (None, 0, 3),
            ["c"],
            ["c", "b"],
        )
        store.upsert([item("b")], "m")
        assert sorted(store.read_changes_after(0, None)[1].touched) == ["a", "b", "c"]  # type: ignore[union-attr]
        store.delete(["a"])
        store.switch("g", 4)
        assert store.read_changes_after(0, None) == (("g", 4, 5), None)
        assert store.read_changes_after(4, "g")[1].touched == ["a"]  # type: ignore[union-attr]
    with closing(ItemStore(**where)) as store:
        assert store.read_state() == ("g", 4, 5)
        assert store.sequence == 5


def test_a_write_that_is_refused_leaves_nothing(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.upsert([item("a", place=1)], "m")
        for wrong in (item("b", place="x"), item("a\0"), item("\ud800"), item("b", text="\udfff"), item("")):
            with pytest.raises(InputError):
                store.upsert([item("fine"), wrong], "m")
        assert [entry.id for entry in store.page(None, 9)] == ["a"]


def test_ids_that_no_database_keeps_are_of_no_item(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.upsert([item(name) for name in "abc"], "m")
        for name in ("\0", "a\0", "\0a", "a\0b", "\ud800", "a\udfff"):
            assert store.get(name) is None
            assert store.select_known([name, "b"]) == {"b"}
            assert store.delete([name]) == []
        for after, expected in (
            ("\0", "abc"),
            ("a\0", "bc"),
            ("a\ud800z", "bc"),
            ("b\0", "c"),
            ("c\0\uffff", ""),
        ):
            assert [entry.id for entry in store.page(after, 9)] == list(expected)
        assert sorted(store.delete(["b\0", "b", "\0"])) == ["b"]


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_lines_for_the_audit_log_are_of_the_write_itself(where: dict[str, Any]) -> None:
    written: list[str] = []

    class Log:
        def append(self, lines: Sequence[str]) -> None:
            written.extend(lines)

        append_missing = append

    def read_kept() -> list[Any]:
        return [
            json.loads(line) for line in store._read_column(sa.select(AUDIT.c.line).order_by(AUDIT.c.number))
        ]

    with closing(ItemStore(**where)) as store:
        store.upsert([item("b"), item("a")], "m", WriteOrder({"action": "upsert"}))
        store.delete(["a", "nobody"], WriteOrder({"action": "delete", "filter": {"n": 10**30}}))
        store.delete(["nobody"], WriteOrder({"action": "delete"}))
        with pytest.raises(InputError):
            store.upsert([item("c", n=1), item("d", n="x")], "m", WriteOrder({"action": "upsert"}))
        assert read_kept() == [
            {"action": "upsert", "n": 2, "ids": ["a", "b"]},
            {"action": "delete", "filter": {"n": 10**30}, "n": 1, "ids": ["a"]},
        ]
    with closing(ItemStore(**where)) as store:
        store.set_audit_file(Log())
        assert [json.loads(line)["action"] for line in written] == ["upsert", "delete"]
        store.set_settings({"a": "b"}, WriteOrder({"action": "set"}))
        assert [json.loads(line)["action"] for line in written] == ["upsert", "delete", "set"]
        assert [line["action"] for line in read_kept()] == ["set"], "the others went with this write"
    with closing(ItemStore(**where)) as store:
        assert read_kept() == []


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_on_a_server_every_write_has_a_number_and_its_line_stays(where: dict[str, Any]) -> None:
    def write_line(action: str) -> WriteOrder:
        return WriteOrder({"action": action})

    with closing(ItemStore(**where)) as one, closing(ItemStore(**where)) as other:
        one.upsert([item("a", place=1)], "m", write_line("first"))
        other.upsert([item("b", place=2)], "m", write_line("second"))
        with pytest.raises(InputError, match="place"):
            one.upsert([item("c", place="text")], "m", write_line("refused"))
        one.delete(["b"], write_line("third"))
        other.set_points({"p": "{}"}, write_line("fourth"))
        one.delete(["nobody"], write_line("nothing"))
        rows = one.read_rows(sa.select(AUDIT.c.number, AUDIT.c.line).order_by(AUDIT.c.number))
        assert [(row.number, json.loads(row.line)["action"]) for row in rows] == [
            (1, "first"),
            (2, "second"),
            (3, "third"),
            (4, "fourth"),
        ]
        log = other.read_log()
        assert (log.change, log.newest, log.points, log.corrections) == (5, 3, 4, 0)
        one.reload()
        assert one.fields == {"place": "number"}


def test_a_withdrawn_write_changes_nothing(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.upsert([item("a")], "m")
        order = WriteOrder({"action": "upsert"})
        assert order.withdraw()
        with pytest.raises(Withdrawn, match="nothing was changed"):
            store.upsert([item("b", place=1)], "m", order)
        late = WriteOrder({"action": "delete"})

        def withdraw_midway() -> None:
            with store._begin_write(late) as connection:
                connection.execute(ITEMS.delete())
                assert late.withdraw()

        with pytest.raises(Withdrawn):
            withdraw_midway()
        assert [entry.id for entry in store.page(None, 9)] == ["a"]
        assert (store.fields, store.sequence, store.count(AUDIT)) == ({}, 1, 0)
        done = WriteOrder()
        store.delete(["a"], done)
        assert not done.withdraw(), "too late"
        assert store.count() == 0


def test_a_database_that_fails_says_so_and_goes_on_when_it_can(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.upsert([item("a")], "m")
        for statement in (
            "ALTER TABLE deletions RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO deletions",
        ):
            with store._engine.connect().execution_options(writes=True) as intruder, intruder.begin():
                intruder.execute(sa.text(statement))
            if "TO elsewhere" in statement:
                with pytest.raises(StoreFailed, match=r"deletions.* not acknowledged"):
                    store.upsert([item("b")], "m")
        assert store.upsert([item("c")], "m") == 1
        assert [entry.id for entry in store.page(None, 9)] == ["a", "c"]


def test_a_gallery_is_the_same_on_both(make_bundle: MakeBundle, tmp_path: Path, database: str | None) -> None:
    base = make_items(make_unit_rows(np.random.default_rng(1), 50, 4))
    bundle = make_bundle(base, make_small_config("hnsw"), match=0.9)
    limits = RebuildLimits(buffer_rows=4)
    with LiveGallery.open(bundle, tmp_path / "data", limits, database=database) as live:
        live.upsert([item(f"n{row}", row, place=row) for row in range(8)])
        live.wait()
        assert live.rebuild_error is None
        live.upsert([item("late", 0)])
        assert live.delete(["i3", "n2"]) == 2
        with Gallery.follow(bundle, tmp_path / "data", database) as reader:
            live.upsert([item("later", 1)])
            for gallery in (live.gallery, reader):
                assert gallery.n_items == 58
                assert {hit.id for hit in gallery.search(VECTORS[0], 2)[0]} == {"late", "n0"}
                assert [hit.id for hit in gallery.search(VECTORS[1], 2)[0]] == ["later", "n1"]
        if database is not None:
            assert not (tmp_path / "data" / "limen.sqlite").exists()
            with pytest.raises(StoreInUse, match="one writer"):
                LiveGallery.open(bundle, tmp_path / "data", limits, database=database)
        live.backup(tmp_path / "backup")
        live.delete_where({"place": {"$gte": 0}})
    with LiveGallery.open(bundle, tmp_path / "data", limits, database=database) as live:
        assert live.gallery.n_items == 51
    restore_backup(tmp_path / "backup", tmp_path / "again")
    with LiveGallery.open(bundle, tmp_path / "again", limits) as live:
        assert live.gallery.n_items == 58
        assert live.gallery.compute_stats()["buffer"] == 2
        assert live.records.read_points().keys() == live.gallery.operating_points.keys()


def test_a_backup_is_restored_into_postgresql(make_bundle: MakeBundle, tmp_path: Path, server: str) -> None:
    bundle = make_bundle(make_items(make_unit_rows(np.random.default_rng(1), 20, 4)))
    with LiveGallery.open(bundle, tmp_path / "data") as live:
        live.upsert([item(f"n{row}", row % 8) for row in range(1_500)])
        live.delete(["i1"])
        live.records._store.add_document(FEEDBACK, "{}", a="n1")
        live.backup(tmp_path / "backup")
        expected = [(kept.id, kept.vector.tobytes()) for kept in live.gallery.page(None, 10_000)]
    restore_backup(tmp_path / "backup", tmp_path / "again")
    for _ in range(2):
        with LiveGallery.open(bundle, tmp_path / "again", database=server) as live:
            assert [
                (entry.id, entry.vector.tobytes()) for entry in live.gallery.page(None, 10_000)
            ] == expected
            assert live.gallery.view.get_vector("i1") is None
            assert live.gallery.n_items == 1_519
            live.records._store.add_document(FEEDBACK, "{}", a="n2")
        assert not (tmp_path / "again" / "limen.sqlite").exists()
    with closing(ItemStore(server, "limen_" + "a" * 16)) as store:
        assert store.count(FEEDBACK) == 3


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_when_the_server_goes_away_writes_fail_and_come_back_with_it(
    make_bundle: MakeBundle, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    bundle = make_bundle(make_items(make_unit_rows(np.random.default_rng(1), 20, 4)))
    with LiveGallery.open(bundle, tmp_path / "data", database=database) as live:
        live.upsert([item("a")])
        engine = sa.create_engine(request.getfixturevalue("server"), isolation_level="AUTOCOMMIT")
        with engine.connect() as other:
            other.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = :name"
                ),
                {"name": sa.make_url(database).database},
            )
        engine.dispose()
        with pytest.raises(StoreFailed):
            live.upsert([item("b")])
        live.upsert([item("c")])
        assert {hit.id for hit in live.gallery.search(VECTORS[0], 2)[0]} == {"a", "c"}


def test_an_address_that_cannot_be_used_is_named() -> None:
    for address, says in (("nonsense", "cannot be used"), ("mysql://x", "cannot be used")):
        with pytest.raises(BundleError, match=says):
            ItemStore(address)
    with pytest.raises(BundleError, match="not an item store"):
        ItemStore("postgresql+psycopg://nobody@/x?host=/nonexistent")


def test_databases_of_one_dialect_share_their_column_types() -> None:
    class Other(Sqlite):
        """A second database that speaks SQLite's dialect."""

    ids, counters = build_column_types((*DATABASES, Other))
    for built, kept in ((ids, ID), (counters, COUNTER)):
        for dialect in (sqlite.dialect(), postgresql.dialect()):
            assert built.compile(dialect) == kept.compile(dialect)


def test_thumbnails_go_with_their_items(where: dict[str, Any]) -> None:
    with closing(ItemStore(**where)) as store:
        store.seed(iter([[item("s"), item("t")]]), "m", {}, {}, {})
        store.upsert([item("a"), item("b"), item("t")], "m", thumbnails={"a": b"\0A", "b": b"B" * 9_000})
        every = ["a", "b", "s", "t", "nobody", "a\0"]
        assert store.read_thumbnails(every) == {"a": b"\0A", "b": b"B" * 9_000}
        store.add_thumbnails([{"s": b"S"}, {"t": b"T", "a": b"not this", "nobody": b"N"}], "here")
        assert store.read_setting(THUMBNAILS_FROM) == "here"
        assert store.read_thumbnails(every) == {"a": b"\0A", "b": b"B" * 9_000, "s": b"S"}
        order = WriteOrder()
        order.withdraw()
        with pytest.raises(Withdrawn):
            store.upsert([item("a")], "m", order, {"a": b"other"})
        assert store.read_thumbnails(["a"]) == {"a": b"\0A"}
        store.upsert([item("a")], "m")
        store.delete(["b", "s"])
        store.upsert([item("b")], "m")
        assert store.read_thumbnails(every) == {}
