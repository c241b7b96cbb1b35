"""Several writers of one schema of PostgreSQL, each with a folder and an index of its own, in step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api_schemas.http.gallery import Feedback
from embeddings.fingerprints import compute_fingerprints
from index.gallery.backup import restore_backup
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem
from index.store import item_store
from index.store.idempotency import AlreadyDone, IdempotencyKey
from index.store.write_order import WriteOrder
from tests.index import postgres
from tests.index.conftest import MakeBundle, make_items, make_small_config, make_unit_rows

VECTORS = make_unit_rows(np.random.default_rng(3), 30, 4)
LIMITS = RebuildLimits(buffer_rows=1_000, deleted_fraction=1.0)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database."""
    with postgres.running() as address:
        yield address


def item(number: int) -> StoredItem:
    return StoredItem(f"n{number}", "l", VECTORS[number], {})


def find(live: LiveGallery, number: int) -> str:
    return live.gallery.search(VECTORS[number], 1)[0][0].id


def list_ids(live: LiveGallery) -> set[str]:
    """The ids as searches see them, which must be those of the database."""
    view = live.gallery.view
    found = {name for part, rows in view.parts for name in part.items.ids.take(part.select_rows({}, rows))}
    assert found == {entry.id for entry in live.gallery.page(None, 1_000)}
    return found


def test_writers_follow_each_other_through_rebuilds_backups_and_long_absence(
    make_bundle: MakeBundle, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_items(make_unit_rows(np.random.default_rng(1), 20, 4))
    bundle = make_bundle(base, make_small_config("hnsw"), match=0.9)
    with (
        LiveGallery.open(bundle, tmp_path / "a", LIMITS, database=database) as one,
        LiveGallery.open(bundle, tmp_path / "b", LIMITS, database=database) as other,
    ):
        one.upsert([item(0), item(1)])
        other.upsert([item(2)])  # behind, and current once it has written itself
        assert [find(other, number) for number in range(3)] == ["n0", "n1", "n2"]
        assert one.follow().newest == 2
        assert find(one, 2) == "n2"
        assert other.delete(["n0"]) == 1
        assert other.delete(["n0"]) == 0
        one.rebuild()  # reads the database, which knows of the deletion
        assert list_ids(one) == list_ids(other)
        one.upsert([item(3)])
        other.rebuild()
        one.follow()
        other.follow()
        assert list_ids(one) == list_ids(other) == {*base.ids.tolist(), "n1", "n2", "n3"}
        assert one.gallery.compute_stats()["generation"] != other.gallery.compute_stats()["generation"]

        other.backup(tmp_path / "backup")
        monkeypatch.setattr(item_store, "MOST_DELETIONS", 1)
        one.delete(["i1"])
        one.delete(["i2"])
        one.delete(["i3"])
        one.rebuild()  # forgets the first of them, which the other has not seen
        assert one.follow().forgotten > other.followed.newest
        other.follow()
        assert list_ids(one) == list_ids(other) == {*base.ids.tolist(), "n1", "n2", "n3"} - {"i1", "i2", "i3"}

        with LiveGallery.open(bundle, tmp_path / "c", LIMITS, database=database) as third:
            assert list_ids(third) == list_ids(one)
        shutil.copytree(tmp_path / "backup", tmp_path / "copy")
    restore_backup(tmp_path / "copy", tmp_path / "again")
    with LiveGallery.open(bundle, tmp_path / "again", LIMITS) as restored:
        assert list_ids(restored) == {*base.ids.tolist(), "n1", "n2", "n3"}


def test_corrections_and_keys_are_of_all_writers(
    make_bundle: MakeBundle, tmp_path: Path, database: str
) -> None:
    bundle = make_bundle(make_items(make_unit_rows(np.random.default_rng(1), 20, 4)), match=0.9)
    corrected = Feedback.model_validate(
        {
            "at": "2026-01-01T00:00:00Z",
            "model_hash": "a" * 64,
            "operating_point": None,
            "decision": None,
            "score": None,
            "a": "i1",
            "b": None,
            "same": False,
            "source": "correction",
            "not_label": "l",
            "fingerprint": compute_fingerprints(VECTORS[:1])[0],
        }
    )
    with (
        LiveGallery.open(bundle, tmp_path / "a", LIMITS, database=database) as one,
        LiveGallery.open(bundle, tmp_path / "b", LIMITS, database=database) as other,
    ):
        one.records.add_feedback(corrected, "s1")
        one.add_correction("s1", corrected)
        other.follow()
        assert "s1" in other.corrections
        one.delete(["i1"])
        other.follow()
        assert "s1" not in other.corrections, "feedback goes with its item"

        def order() -> WriteOrder:
            return WriteOrder(key=IdempotencyKey("ab" * 32, "request"))

        one.upsert([item(5)], order())
        with pytest.raises(AlreadyDone):
            other.delete(["n5"], order())
        other.follow()
        assert find(other, 5) == "n5"
