"""`limen migrate`: another engine or database, taken only when sampled decisions are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from api_schemas.manifest import COLLECTION_FILE, INDEX_FILE, VECTORS_FILE, IndexKind
from common.errors import InputError
from index.bundle import read_manifest, verify_bundle
from index.engines.hnsw import HnswEngine
from index.gallery import migrate_store as stores
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.gallery.migrate_engine import migrate_bundle, migrate_data_folder
from index.gallery.migrate_store import migrate_store
from index.gallery.same_decisions import DecisionsDiffer, check_same_decisions
from index.items.stored_item import StoredItem
from index.store.document_store import StoreFailed, StoreInUse
from index.store.item_store import DATABASE_FILE
from tests.engines.galleries import CONFIGS, hash_model, make_gallery, make_queries, write_gallery
from tests.index.conftest import NEVER, make_unit_rows
from tests.limen.conftest import run_limen

QUERIES = 60


def write_some(live: LiveGallery) -> None:
    rows = make_unit_rows(np.random.default_rng(3), 5)
    live.upsert([StoredItem(f"n{number}", "new", row, {"camera": 7}) for number, row in enumerate(rows)])
    live.delete(["i003", "i110"])


def describe(item: StoredItem | None) -> tuple[Any, ...]:
    assert item is not None
    return item.id, item.label, item.vector.tobytes(), dict(item.metadata)


def list_files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.mark.usefixtures("milvus")
@pytest.mark.parametrize(
    "queries", [QUERIES, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
)
def test_from_faiss_to_milvus_and_back(queries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMEN_MILVUS_TIMEOUT", "120")  # of a small server on a machine that may be busy
    flat = write_gallery(tmp_path / "flat", "flat", hash_model(f"there and back {queries}"), 0.9)
    there = migrate_bundle(flat, tmp_path / "milvus", CONFIGS["milvus"], queries)
    assert there.index.kind == "milvus"
    assert not (tmp_path / "milvus" / INDEX_FILE).exists()
    assert (flat / VECTORS_FILE).samefile(tmp_path / "milvus" / VECTORS_FILE), "not written twice"
    back = migrate_bundle(tmp_path / "milvus", tmp_path / "hnsw", CONFIGS["hnsw"], queries)
    assert back.index.kind == "hnsw"
    for name in ("milvus", "hnsw"):
        manifest = verify_bundle(tmp_path / name)
        assert manifest.data_hash == read_manifest(flat).data_hash
        with Gallery.open(flat) as before, Gallery.open(tmp_path / name) as after:
            check_same_decisions(before, after, QUERIES)
            assert after.match(make_queries()) == before.match(make_queries())
            assert describe(after.get("i042")) == describe(before.get("i042"))


@pytest.mark.usefixtures("milvus")
def test_an_engine_of_a_data_folder_is_kept_through_rebuilds(tmp_path: Path) -> None:
    bundle = write_gallery(tmp_path / "bundle", "hnsw", hash_model("folder"), 0.9)
    data = tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        write_some(live)
        expected = live.gallery.match(make_queries())
    for kind in ("milvus", "flat"):
        assert migrate_data_folder(bundle, data, CONFIGS[kind], QUERIES) == len(make_gallery()) + 3
        with LiveGallery.open(bundle, data, NEVER) as live:
            assert live.gallery.compute_stats()["kind"] == kind
            assert live.gallery.match(make_queries()) == expected
            live.rebuild()
            assert live.gallery.compute_stats()["kind"] == kind
            assert live.gallery.match(make_queries()) == expected


def test_an_engine_that_decides_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third candidate is lost, which the audit of a build cannot know."""
    bundle = write_gallery(tmp_path / "bundle", "flat", hash_model("refused"), 0.9)
    data = tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        write_some(live)
    search = HnswEngine.search

    def lose(self: HnswEngine, queries: Any, fetch: int, *others: Any) -> Any:
        near, nodes = search(self, queries, fetch, *others)
        return near, np.where(nodes % 3 == 0, 1, nodes)

    monkeypatch.setattr(HnswEngine, "search", lose)
    monkeypatch.setattr(
        "index.search.generation.audit_self_recall", lambda engine, *_: (np.empty(0, dtype=np.int64), None)
    )
    before = list_files(data)
    with pytest.raises(
        DecisionsDiffer, match=r"^\d+ of 60 sampled decisions differ, the first: query \d+ .*Nothing"
    ):
        migrate_data_folder(bundle, data, CONFIGS["hnsw"], QUERIES)
    after = list_files(data)
    assert {name for name in after if "generations" in name} == {
        name for name in before if "generations" in name
    }
    with pytest.raises(DecisionsDiffer):
        migrate_bundle(bundle, tmp_path / "new", CONFIGS["hnsw"], QUERIES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "data"]


@pytest.mark.usefixtures("milvus")
def test_a_bundle_that_was_not_finished_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_gallery(tmp_path / "bundle", "flat", hash_model("continued"), 0.9)
    with monkeypatch.context() as broken:
        broken.setattr("index.gallery.migrate_engine.check_same_decisions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            migrate_bundle(bundle, tmp_path / "new", CONFIGS["milvus"], QUERIES)
    assert not (tmp_path / "new").exists()
    key = (tmp_path / ".new.migrating" / COLLECTION_FILE).read_text()
    with monkeypatch.context() as patch:
        patch.setattr("index.engines.milvus.collection.Collection.fill", interrupt)
        migrate_bundle(bundle, tmp_path / "new", CONFIGS["milvus"], QUERIES)
    assert (tmp_path / "new" / COLLECTION_FILE).read_text() == key, "nothing was loaded a second time"


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["flat", "hnsw_sq8"])
def test_from_sqlite_to_postgresql_and_back(kind: IndexKind, tmp_path: Path, database: str) -> None:
    bundle = write_gallery(tmp_path / "bundle", kind, hash_model(f"stores {kind}"), 0.9)
    data, n = tmp_path / "data", len(make_gallery()) + 3
    with LiveGallery.open(bundle, data, NEVER) as live:
        write_some(live)
        live.rebuild()
        live.upsert([StoredItem("late", "late", make_queries()[14])])
        live.delete(["i005"])
        expected = live.gallery.match(make_queries())
        items = [describe(item) for item in live.gallery.page(None, 1_000)]
        generation = live.gallery.compute_stats()["generation"]
    for source, target in ((None, database), (database, None)):
        assert migrate_store(bundle, data, source, target, QUERIES) == n
        assert (data / DATABASE_FILE).exists() == (target is None)
        with LiveGallery.open(bundle, data, NEVER, database=target) as live:
            assert live.gallery.match(make_queries()) == expected
            assert [describe(item) for item in live.gallery.page(None, 1_000)] == items
            assert live.gallery.compute_stats()["generation"] == generation, "not built again"
            assert live.fields == {
                "camera": "number",
                "good": "boolean",
                "marks": "numbers",
                "place": "text",
                "seen": "time",
                "tags": "texts",
                "weight": "number",
            }


def test_a_copy_that_was_broken_off_is_continued(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_hash = hash_model("broken off")
    bundle = write_gallery(tmp_path / "bundle", "flat", model_hash, 0.9)
    data, steps = tmp_path / "data", []
    with LiveGallery.open(bundle, data, NEVER) as live:
        expected = live.gallery.match(make_queries())
    monkeypatch.setattr(stores, "ROWS", 50)

    def track(blocks: Any, name: str, total: int | None = None) -> Any:
        for block in blocks:
            if name == "items copied":
                steps.append(block)
                if len(steps) == 3:
                    raise KeyboardInterrupt
            yield block

    with pytest.raises(KeyboardInterrupt):
        migrate_store(bundle, data, None, database, QUERIES, track)
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        count = connection.execute(sa.text(f'SELECT count(*) FROM "limen_{model_hash[:16]}".items')).scalar()
    engine.dispose()
    assert count == 100
    with LiveGallery.open(bundle, data, NEVER) as live, pytest.raises(StoreInUse, match="stop it"):
        migrate_store(bundle, data, None, database, QUERIES)
    migrate_store(bundle, data, None, database, QUERIES, track)
    assert len(steps) == 3 + 2, "what was copied was not copied again"
    with LiveGallery.open(bundle, data, NEVER, database=database) as live:
        assert live.gallery.match(make_queries()) == expected


def test_what_was_written_meanwhile_is_not_lost(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store on a server may have writers that hold no lock of this folder."""
    bundle = write_gallery(tmp_path / "bundle", "flat", hash_model("meanwhile"), 0.9)
    data = tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        write_some(live)
    states = iter(["before", "after"])
    with monkeypatch.context() as patch:
        patch.setattr(stores, "_read_state", lambda connection: next(states))
        with pytest.raises(StoreFailed, match="stop every service"):
            migrate_store(bundle, data, None, database, QUERIES)
    assert (data / DATABASE_FILE).exists()
    assert migrate_store(bundle, data, None, database, QUERIES) == len(make_gallery()) + 3
    with LiveGallery.open(bundle, tmp_path / "other", NEVER):
        pass
    with pytest.raises(InputError, match="holds a gallery of this model already"):
        migrate_store(bundle, tmp_path / "other", None, database, QUERIES)


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    bundle = write_gallery(tmp_path / "bundle", "flat", hash_model("command"), 0.9)
    for arguments, sentence in (
        ([], "--out NEW_BUNDLE or --data DIR"),
        (["--out", str(tmp_path / "new")], "--out NEW_BUNDLE or --data DIR"),
        (["--out", str(tmp_path / "new"), "--to-sqlite"], "--out NEW_BUNDLE or --data DIR"),
        (["--out", str(tmp_path / "new"), "--set", "index.kind=milvos"], "milvus"),
        (["--data", str(tmp_path), "--to-sqlite"], "holds no items"),
    ):
        done = run_limen("migrate", str(bundle), *arguments)
        assert done.code == 2
        assert sentence in done.err
        assert len(done.err.strip().splitlines()) == 1
    done = run_limen(
        "migrate", str(bundle), "--out", str(tmp_path / "new"), "--set", "index.kind=hnsw", "--queries", "50"
    )
    assert done.code == 0, done.err
    assert "50 sampled queries were decided alike" in done.err
    assert read_manifest(tmp_path / "new").index.kind == "hnsw"
