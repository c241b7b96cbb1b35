"""Writes are on disk and found at once; rebuilds, restarts, backups and second writers change nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from common.errors import BundleError, InputError, LimenError
from index.gallery.background_worker import LOGGER
from index.gallery.backup import restore_backup
from index.gallery.data_folder import DataFolder
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem
from index.search.generation import Generation
from index.store.document_store import StoreInUse
from index.store.item_store import DATABASE_FILE
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows

RNG = np.random.default_rng(0)
BASE = make_items(make_unit_rows(RNG, 200), place=np.arange(200))


def item(name: str, vector: NDArray[np.float32], label: str = "new", **metadata: Any) -> StoredItem:
    """An item to write."""
    return StoredItem(name, label, vector, metadata)


def ids(hits: list[Any]) -> list[str]:
    """The ids of hits."""
    return [hit.id for hit in hits]


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """A small HNSW bundle that decides."""
    return make_bundle(BASE, make_small_config("hnsw"), match=0.9, verify=0.9)


def test_a_write_is_found_at_once_and_after_a_restart(bundle: Path, tmp_path: Path) -> None:
    new = make_unit_rows(RNG, 3)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 200
        assert live.upsert([item("a", new[0], place=900), item("i7", new[1], label="c1")]) == 1
        assert live.delete(["i3", "nobody"]) == 1
    for _ in range(2):
        with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
            assert live.gallery.n_items == 200
            assert ids(live.gallery.search(new[0], 1)[0]) == ["a"]
            assert ids(live.gallery.search(new[1], 1)[0]) == ["i7"]
            assert live.gallery.search(BASE.vectors[7], 1)[0][0].id != "i7"
            assert live.gallery.search(BASE.vectors[3], 1)[0][0].id != "i3"
            assert live.gallery.view.get_vector("i3") is None
            assert live.gallery.get("i3") is None
            stored = live.gallery.get("a")
            assert stored is not None
            assert (stored.label, dict(stored.metadata)) == ("new", {"place": 900})
            assert np.array_equal(stored.vector, new[0])
            assert ids(live.gallery.search(new[0], 5, filter={"place": {"$gte": 190}})[0])[0] == "a"
            assert live.gallery.match(new[0])[0][:3] == ("match", "new", "a")


def test_a_rebuild_changes_no_answer(bundle: Path, tmp_path: Path) -> None:
    queries = make_unit_rows(RNG, 20)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item(f"n{row}", vector, place=-1) for row, vector in enumerate(make_unit_rows(RNG, 50))])
        live.delete([f"i{row}" for row in range(0, 200, 3)])
        before = live.gallery.search(queries, 30, exact=True)
        live.rebuild()
        after = live.gallery.search(queries, 30, exact=True)
        assert [[hit[:4] for hit in hits] for hits in before] == [[hit[:4] for hit in hits] for hits in after]
        stats = live.gallery.compute_stats()
        assert (stats["buffer"], stats["deleted"], stats["items"]) == (0, 0, live.gallery.n_items)
        generations = [entry.name for entry in (tmp_path / "data" / "generations").iterdir()]
        assert generations == [stats["generation"]]
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.compute_stats()["generation"] == stats["generation"]
        again = live.gallery.search(queries, 30, exact=True)
        assert [[hit[:4] for hit in hits] for hits in again] == [[hit[:4] for hit in hits] for hits in after]


def test_writes_and_searches_go_on_during_a_rebuild(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = Event(), Event()
    build = Generation.build.__func__  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Any:
        started.set()
        assert go_on.wait(20)
        return build(Generation, *arguments)

    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(Generation, "build", slow)
        live.delete(["i1"])
        rebuilt = pool.submit(live.rebuild)
        assert started.wait(20)
        new = make_unit_rows(RNG, 2)
        live.upsert([item("during", new[0]), item("i5", new[1])])
        live.delete(["i9"])
        assert ids(live.gallery.search(new[0], 1)[0]) == ["during"]
        go_on.set()
        rebuilt.result(20)
        assert ids(live.gallery.search(new, 1)[0] + live.gallery.search(new, 1)[1]) == ["during", "i5"]
        for gone in (1, 5, 9):
            assert live.gallery.search(BASE.vectors[gone], 1, exact=True)[0][0].id != f"i{gone}"
        assert live.gallery.n_items == 199
        assert live.gallery.compute_stats()["buffer"] == 2


def test_readers_never_see_a_swap_half_done(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every view that readers could have got during a rebuild holds what was written while it was built."""
    build = Generation.build.__func__  # type: ignore[attr-defined]
    seen: list[int] = []

    class Watched(DataFolder):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_shown" and value is not None:
                seen.append(len(value))
            super().__setattr__(name, value)

    monkeypatch.setattr("index.gallery.live_gallery.DataFolder", Watched)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:

        def written_meanwhile(*arguments: Any) -> Any:
            live.upsert([item(f"during{row}", vector) for row, vector in enumerate(make_unit_rows(RNG, 7))])
            live.delete(["i1", "i2"])
            seen.clear()
            return build(Generation, *arguments)

        monkeypatch.setattr(Generation, "build", written_meanwhile)
        live.rebuild()
        assert seen == [205]


def test_enough_changes_start_a_rebuild_by_themselves(bundle: Path, tmp_path: Path) -> None:
    limits = RebuildLimits(buffer_rows=20, deleted_fraction=0.2)
    with LiveGallery.open(bundle, tmp_path / "data", limits) as live:
        live.upsert([item(f"n{row}", vector) for row, vector in enumerate(make_unit_rows(RNG, 21))])
        live.wait()
        assert live.rebuild_error is None
        assert live.gallery.compute_stats()["buffer"] == 0
        assert str(live.gallery.compute_stats()["generation"]).startswith("000000000001-221-")
        live.delete([f"i{row}" for row in range(45)])
        live.wait()
        assert (live.gallery.compute_stats()["deleted"], live.gallery.n_items) == (0, 176)


def test_a_rebuild_that_fails_leaves_the_old_generation_and_says_why(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LOGGER, "handlers", [caplog.handler])
    with LiveGallery.open(bundle, tmp_path / "data", RebuildLimits(buffer_rows=1)) as live:
        monkeypatch.setattr("index.gallery.generation_folders.fsync_and_hash", full)
        new = make_unit_rows(RNG, 2)
        live.upsert([item("a", new[0]), item("b", new[1])])
        live.wait()
        assert live.rebuild_error is not None
        assert "No space left" in live.rebuild_error
        record = caplog.records[0]
        assert (record.name, record.levelname) == ("limen.index", "ERROR")
        assert live.rebuild_error in record.getMessage()
        assert ids(live.gallery.search(new[0], 1)[0]) == ["a"]
        monkeypatch.undo()
        live.rebuild()
        assert live.gallery.compute_stats()["buffer"] == 0
        assert live.rebuild_error is None


def test_a_full_disk_fails_the_write_and_keeps_what_was_acknowledged(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("kept", BASE.vectors[0])])
        with live._store._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            with pytest.raises(Exception, match="full"):
                connection.exec_driver_sql("CREATE TABLE more AS SELECT * FROM items, items AS others")
            connection.rollback()
        assert live.gallery.get("kept") is not None
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 201


def test_everything_can_be_deleted_and_begun_again(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert len(live.delete_where({"place": {"$gte": 0}})) == 200
        assert live.gallery.search(BASE.vectors[:2], 5) == [[], []]
        assert live.gallery.match(BASE.vectors[0])[0].decision == "unknown"
        live.rebuild()
        live.upsert([item("a", BASE.vectors[0])])
        assert ids(live.gallery.search(BASE.vectors[0], 5)[0]) == ["a"]
        assert len(live.delete_where({"label": "new"})) == 1
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 0
        with pytest.raises(InputError, match="empty filter"):
            live.delete_where({})


def test_items_are_paged_in_the_order_of_their_ids(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        seen: list[str] = []
        after = None
        while page := live.gallery.page(after, 33):
            seen += [item.id for item in page]
            after = seen[-1]
        assert seen == sorted(BASE.ids.tolist())


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"place": "near"}, "is a number in this gallery"),
        ({"place": True}, "is a number in this gallery"),
        ({"label": "x"}, "are taken"),
        ({"_x": 1}, "are taken"),
        ({"x": float("nan")}, "finite number"),
        ({"x": [[1]]}, "list"),
        ({"place": [1]}, "is a number in this gallery"),
    ],
)
def test_metadata_that_fits_no_field_is_refused_whole(
    bundle: Path, tmp_path: Path, metadata: dict[str, Any], says: str
) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        with pytest.raises(InputError, match=says):
            live.upsert([item("fine", BASE.vectors[0]), StoredItem("bad", "x", BASE.vectors[1], metadata)])
        assert live.gallery.get("fine") is None
        assert live.gallery.n_items == 200


def test_ids_are_checked(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        for names, says in (
            (["a", "a"], "twice"),
            ([""], "1 to 512"),
            (["x" * 513], "1 to 512"),
            (["a\0"], "NUL"),
        ):
            with pytest.raises(InputError, match=says):
                live.upsert([item(name, BASE.vectors[0]) for name in names])


def test_vectors_are_checked_and_brought_to_length_one(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        for vector, says in (
            (np.full(16, np.nan), "NaN"),
            (np.zeros(16), "zero vector"),
            (np.ones(15), "16 numbers"),
        ):
            with pytest.raises(InputError, match=says):
                live.upsert([StoredItem("a", "x", vector.astype(np.float32))])
        live.upsert([StoredItem("a", "x", np.full(16, 5, dtype=np.float32))])
        assert np.linalg.norm(live.gallery.view.get_vector("a")) == pytest.approx(1)  # type: ignore[arg-type]


def test_a_hit_has_the_vector_that_was_found(bundle: Path, tmp_path: Path) -> None:
    new = make_unit_rows(RNG, 2)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("a", new[0])])
        hits = live.gallery.search(new[0], 20)[0]
        assert {"a"} < set(ids(hits))
        view = live.gallery.view
        for hit in hits:
            np.testing.assert_array_equal(view.get_hit_vector(hit), view.get_vector(hit.id))
        live.delete([hits[1].id])
        live.upsert([item("a", new[1]), item("b", new[1])])
        found = live.gallery.view.get_hit_vector(hits[1])
        np.testing.assert_array_equal(found, BASE.vectors[list(BASE.ids).index(hits[1].id)])
        np.testing.assert_array_equal(live.gallery.view.get_hit_vector(hits[0]), new[1])


def test_the_second_writer_is_refused(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER):
        with pytest.raises(StoreInUse, match="one writer"):
            LiveGallery.open(bundle, tmp_path / "data", NEVER)
        code = (
            "from index.gallery.live_gallery import LiveGallery\nimport sys\n"
            "try: LiveGallery.open(sys.argv[1], sys.argv[2])\nexcept Exception as error: print(error)"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, bundle, tmp_path / "data"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "one writer" in second.stdout
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()


def test_a_closed_gallery_takes_no_writes(bundle: Path, tmp_path: Path) -> None:
    live = LiveGallery.open(bundle, tmp_path / "data", NEVER)
    live.close()
    with pytest.raises(LimenError, match="closed"):
        live.upsert([item("a", BASE.vectors[0])])


def test_a_folder_of_another_model_is_refused(bundle: Path, make_bundle: MakeBundle, tmp_path: Path) -> None:
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    foreign = make_bundle(BASE, name="other", model_hash="e" * 64)
    with pytest.raises(BundleError, match="holds items of model aaaa"):
        LiveGallery.open(foreign, tmp_path / "data", NEVER)


def test_a_newer_bundle_of_the_same_model_leaves_the_items_alone(
    bundle: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("a", BASE.vectors[0])])
    newer = make_bundle(BASE.subset(range(50)), name="other")
    with LiveGallery.open(newer, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 201


def test_a_damaged_generation_is_built_again(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("a", BASE.vectors[0])])
        live.rebuild()
    (index,) = (tmp_path / "data").glob("generations/*/graph.npy")
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    index.write_bytes(content)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 201
        assert live.gallery.probe(201) == (201, 201)


def test_files_are_hashed_once_a_data_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    hashed: list[str] = []

    def note(path: Path) -> str:
        hashed.append(path.name)
        return "0" * 64

    monkeypatch.setattr("index.verified_files.hash_file", note)
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    assert hashed == []
    (bundle / "config.yaml").write_bytes((bundle / "config.yaml").read_bytes())
    with pytest.raises(BundleError, match=r"config\.yaml"):
        LiveGallery.open(bundle, tmp_path / "data", NEVER)
    assert hashed == ["config.yaml"]


def test_a_backup_taken_while_writing_is_restored_whole(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("a", BASE.vectors[0], place=7)])
        live.rebuild()
        live.upsert([item("b", BASE.vectors[1])])
        stop = Event()

        def write() -> int:
            count = 0
            while not stop.is_set():
                live.upsert([item(f"w{count}", BASE.vectors[2])])
                count += 1
            return count

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(write)
            live.backup(tmp_path / "backup")
            stop.set()
            written.result(20)
        with pytest.raises(InputError, match="exists"):
            live.backup(tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "again")
    with LiveGallery.open(bundle, tmp_path / "again", NEVER) as live:
        stored = [item.id for item in live.gallery.page(None, 10_000)]
        extra = sorted(int(name[1:]) for name in stored if name.startswith("w"))
        assert extra == list(range(len(extra)))
        assert {"a", "b", *BASE.ids.tolist()} < {*stored, "last"}
        names = {point.name for point in live.records.read_points().values()}
        assert names == {"fpir 1 %", "far 1 %"}
        assert live.gallery.n_items == len(stored)
    with pytest.raises(InputError, match="not empty"):
        restore_backup(tmp_path / "backup", tmp_path / "again")
    (tmp_path / "backup" / DATABASE_FILE).write_bytes(b"SQLite format 3\0 changed")
    with pytest.raises(BundleError, match=DATABASE_FILE):
        restore_backup(tmp_path / "backup", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_store_of_a_newer_version_or_of_something_else_is_refused(bundle: Path, tmp_path: Path) -> None:
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    database = sqlite3.connect(tmp_path / "data" / DATABASE_FILE)
    with database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(BundleError, match="9999"):
        LiveGallery.open(bundle, tmp_path / "data", NEVER)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / DATABASE_FILE).write_text("not a database " * 100)
    with pytest.raises(BundleError, match="not an item store"):
        LiveGallery.open(bundle, tmp_path / "other", NEVER)


def test_what_is_acknowledged_is_synced(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        with live._store._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        stats = json.loads(json.dumps(live.gallery.compute_stats()))
        assert stats["sequence"] == 0


@pytest.mark.parametrize("requested", [None, 3])
def test_a_rebuild_probes_as_many_cells_as_requested_or_measures_again(
    make_bundle: MakeBundle, tmp_path: Path, requested: int | None
) -> None:
    bundle = make_bundle(BASE, IndexConfig(kind="ivf_pq", nprobe=requested))
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([item("new", make_unit_rows(RNG, 1)[0])])
        live.rebuild()
        main = live.gallery.view.main
        assert main is not None
        assert (len(main), main.description.kind) == (201, "ivf_pq")
        measured = "recall" in main.description.parameters
        assert measured == (requested is None)
        assert measured or main.description.parameters["nprobe"] == requested
