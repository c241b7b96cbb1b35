"""`limen prepare-database` and `limen milvus-collections`: what is kept on servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from common.errors import BundleError
from index.engines.milvus.unnamed_collections import list_collections
from index.gallery.gallery import Gallery
from index.store.item_store import ItemStore
from index.store.prepare_server import prepare_server
from service.telemetry import log_progress as progress
from tests.engines.galleries import hash_model, make_gallery, write_gallery
from tests.engines.milvus_server import URI, run_local_server
from tests.index import postgres
from tests.limen.conftest import run_limen


def test_a_database_is_prepared_for_all_models_in_it() -> None:
    schema = f"limen_{hash_model('prepared')[:16]}"
    with postgres.running() as address:
        assert prepare_server(address) == ["limen_service"]
        ItemStore(address, schema).close()
        done = run_limen("prepare-database", "--database-url", address)
        assert (done.code, "the items of 1 models" in done.err) == (0, True), done.err
        engine = sa.create_engine(address)
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE \"{schema}\".alembic_version SET version_num = 'newer'"))
        engine.dispose()
        with pytest.raises(BundleError, match="not an item store that this version of Limen reads"):
            prepare_server(address)


@pytest.fixture
def own_milvus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of the test's own: on another, what others need would be removed."""
    with run_local_server() as server:
        monkeypatch.setenv(URI, server.uri)
        yield


@pytest.mark.usefixtures("own_milvus")
def test_collections_that_no_bundle_names_are_found_and_removed(tmp_path: Path) -> None:
    kept, gone = (
        write_gallery(tmp_path / name, "milvus", hash_model(name), 0.9) for name in ("kept", "gone")
    )
    for bundle in (kept, gone):
        Gallery.open(bundle).close()
    named = {one.folder: one.name for one in list_collections([tmp_path])}
    shutil.rmtree(gone)

    listed = run_limen("milvus-collections", str(tmp_path))
    assert listed.code == 0, listed.err
    assert f"{named[kept]}\t{kept}" in listed.out
    assert f"{named[gone]}\t-" in listed.out
    assert "--remove" in listed.err

    assert run_limen("milvus-collections", str(tmp_path), "--remove").code == 0
    names = {one.name for one in list_collections([tmp_path])}
    assert names == {named[kept]}
    with Gallery.open(kept) as gallery:
        assert len(gallery.search(make_gallery().vectors[:1], 3)[0]) == 3
    assert run_limen("milvus-collections", str(tmp_path / "nowhere")).code == 2


def test_loading_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress.LOGGER, "info", lambda _, extra: told.append(extra["fields"]))
    assert list(progress.log_progress([1, 2, 3], "Milvus")) == [1, 2, 3]
    assert [(one["step"], one["done"], one["total"]) for one in told] == [("Milvus", n, 3) for n in range(3)]
