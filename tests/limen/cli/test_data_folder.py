"""``limen rebuild``, ``limen backup``, ``limen restore``."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import BundleError, InputError
from index.bundle import write_bundle
from index.gallery.backup import BACKUP_FILE
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.document_store import StoreInUse
from limen.cli.commands.data_folder import backup, rebuild, restore
from service.models.loaded_model import find_items_folder
from tests.index.conftest import MODEL, make_small_config
from tests.limen.conftest import make_classes


def test_a_data_folder_is_rebuilt_backed_up_while_in_use_and_restored(tmp_path: Path) -> None:
    items = make_classes(20, 4)
    write_bundle(
        tmp_path / "bundle",
        name="toy",
        items=items,
        model_hash=MODEL,
        encoder_folder=None,
        index_config=make_small_config("hnsw"),
        report=None,
        operating_points=[],
        active={},
        reasons=[],
        config_yaml="",
    )
    data = tmp_path / "data"
    kept = find_items_folder(tmp_path / "bundle", data)
    with pytest.raises(InputError, match="holds no items"):
        rebuild(tmp_path / "bundle", data)
    with LiveGallery.open(tmp_path / "bundle", kept) as live:
        live.upsert([StoredItem("new", "x", items.vectors[0], {"place": 3})])
        with pytest.raises(StoreInUse):
            rebuild(tmp_path / "bundle", data)
    rebuild(tmp_path / "bundle", data)
    with LiveGallery.open(tmp_path / "bundle", kept) as live:
        assert live.gallery.compute_stats()["buffer"] == 0
        backup(data, tmp_path / "backup")
        live.delete(["new"])
    restore(tmp_path / "backup", tmp_path / "again")
    with LiveGallery.open(
        tmp_path / "bundle", find_items_folder(tmp_path / "bundle", tmp_path / "again")
    ) as live:
        assert live.gallery.n_items == len(items) + 1
        assert live.gallery.get("new") is not None
    with pytest.raises(InputError, match="not a data folder"):
        backup(tmp_path / "bundle", tmp_path / "nothing")
    (tmp_path / "backup" / BACKUP_FILE).unlink()
    with pytest.raises(BundleError, match="not a backup"):
        restore(tmp_path / "backup", tmp_path / "third")
