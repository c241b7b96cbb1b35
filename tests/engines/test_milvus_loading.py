"""Loading a generation into Milvus: whole or without its alias, continued where it broke off."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api_schemas.manifest import COLLECTION_FILE
from common.errors import BundleError, ConfigError
from index.bundle import verify_bundle
from index.engines.engine import EngineUnavailable
from index.engines.milvus import collection as collections
from index.engines.milvus import engine as engines
from index.engines.milvus.collection import Collection
from index.engines.milvus.engine import MilvusEngine
from index.engines.milvus.server import MilvusServer, get_server
from index.engines.milvus.settings import MilvusSettings
from index.gallery.backup import restore_backup
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.engines.galleries import hash_model, make_gallery, make_queries, write_gallery
from tests.engines.milvus_server import URI
from tests.index.conftest import NEVER, make_unit_rows

Bundle = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, milvus: str) -> Bundle:
    """A bundle of a model of this name, which nobody has opened."""
    return lambda name: write_gallery(tmp_path / name, "milvus", hash_model(name), 0.9)


def list_collections(name: str) -> list[str]:
    """The collections of a model."""
    found = get_server().call("list_collections")
    return sorted(one for one in found if one.startswith(f"limen_{hash_model(name)[:16]}_16_"))


def wait_for(name: str, count: int) -> list[str]:
    """The collections of a model once they are so many."""
    deadline = time.monotonic() + 30
    while len(list_collections(name)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return list_collections(name)


def count_sent(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[int]:
    """The first nodes of the batches that are sent from now on; the batch ``fail_at`` fails."""
    sent: list[int] = []
    upsert = Collection._upsert

    def count(self: Collection, name: str, source: Any, nodes: Any, **others: Any) -> None:
        if len(sent) == fail_at:
            raise EngineUnavailable("away")
        upsert(self, name, source, nodes, **others)
        sent.append(int(nodes[0]))

    monkeypatch.setattr(Collection, "_upsert", count)
    return sent


def test_a_load_that_broke_off_is_continued(write: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write("continued load")
    monkeypatch.setattr(collections, "BATCH_ROWS", 50)
    with monkeypatch.context() as broken:
        count_sent(broken, fail_at=2)
        with pytest.raises(EngineUnavailable):
            Gallery.open(bundle)
    (loading,) = list_collections("continued load")
    assert get_server().call("list_aliases", loading)["aliases"] == [], "not searched before it is whole"
    with monkeypatch.context() as counted:
        sent = count_sent(counted)
        with Gallery.open(bundle) as gallery:
            assert len(gallery.match(make_queries())) == len(make_queries())
        assert sent == [100]
        with Gallery.open(bundle):
            assert sent == [100], "once it is whole nothing is sent"
    assert list_collections("continued load") == [loading]


def test_vectors_that_are_missing_on_the_server_are_loaded_beside_and_switched(write: Bundle) -> None:
    bundle = write("damaged load")
    with Gallery.open(bundle) as gallery:
        expected = gallery.match(make_queries())
        (old,) = list_collections("damaged load")
        get_server().call("delete", old, filter="node < 5")
        with Gallery.open(bundle) as again:
            assert again.match(make_queries()) == expected
            (new,) = list_collections("damaged load")
            assert new != old
        assert gallery.match(make_queries()) == expected, "searches go by the alias"


def test_nodes_that_searches_miss_are_compared_exactly(
    write: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write("lossy")
    search = MilvusEngine._ask

    def lose(self: MilvusEngine, *arguments: Any) -> Any:
        return [
            ([node for node in ids if node % 50 != 7], near[: sum(node % 50 != 7 for node in ids)])
            for ids, near in search(self, *arguments)
        ]

    with Gallery.open(write("lossless")) as whole:
        expected = [hits[0].similarity for hits in whole.search(make_gallery().vectors, 1)]
    monkeypatch.setattr(MilvusEngine, "_ask", lose)
    for _ in range(2):  # audited by the first, remembered for the second
        with Gallery.open(bundle) as gallery:
            nodes = int(gallery.compute_stats()["distinct_vectors"])
            assert gallery.compute_stats()["side_list"] == len(range(7, nodes, 50))
            assert [hits[0].similarity for hits in gallery.search(make_gallery().vectors, 1)] == expected
    assert verify_bundle(bundle).index.kind == "milvus"


def test_a_rebuild_replaces_the_collection_and_removes_the_old_once_nobody_searches_it(
    write: Bundle, tmp_path: Path
) -> None:
    bundle, data = write("blue green"), tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        of_bundle = list_collections("blue green")
        live.upsert([StoredItem("new", "new", make_unit_rows(np.random.default_rng(0), 1)[0])])
        live.rebuild()
        first = set(wait_for("blue green", 2)) - set(of_bundle)
        assert len(first) == 1, "that of the bundle belongs to the bundle"
        held = live.gallery.view
        live.rebuild()
        assert first < set(list_collections("blue green"))
        held.search(make_queries(), 1)
        del held
        gc.collect()
        now = wait_for("blue green", 2)
        assert set(of_bundle) < set(now)
        assert first.isdisjoint(now)
        live.backup(tmp_path / "backup")
    assert len(list((data / "generations").iterdir())) == 1
    assert not list((tmp_path / "backup").rglob(COLLECTION_FILE)), (
        "a restored folder gets a collection of its own"
    )
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    with LiveGallery.open(bundle, tmp_path / "restored", NEVER) as live:
        assert live.gallery.match(make_queries()[:1])
        assert len(list_collections("blue green")) == 3


def test_a_large_set_gets_a_graph(write: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "FLAT_UP_TO", 100)
    with Gallery.open(write("graph")) as gallery:
        (name,) = list_collections("graph")
        assert get_server().call("describe_index", name, "vector")["index_type"] == "HNSW"
        assert gallery.compute_stats()["missed"] == 0
        assert len(gallery.match(make_queries())) == len(make_queries())


def test_a_server_that_cannot_be_used_is_named_in_one_sentence(
    write: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = write("nowhere")
    for name, value, error, says in (
        (URI, "", ConfigError, "LIMEN_MILVUS_URI does not say where"),
        (URI, "http://me:hush@127.0.0.1:1", EngineUnavailable, "http://127.0.0.1:1 cannot be reached"),
        (URI, "here", ConfigError, "LIMEN_MILVUS_URI"),
        ("LIMEN_MILVUS_CERT_FILE", "a.pem", ConfigError, "set all three"),
        ("LIMEN_MILVUS_TIMEOUT", "soon", ConfigError, "LIMEN_MILVUS_TIMEOUT"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(error, match=says) as raised:
                Gallery.open(bundle)
            assert "hush" not in str(raised.value)
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [
        ("2.4.23", False),
        ("v2.5.0", True),
        ("3.0.1-dev", True),
        ("milvus_lite-3.2.2", True),
        ("unknown", False),
    ],
)
def test_versions_without_what_is_needed_are_refused(version: str, is_taken: bool) -> None:
    server = MilvusServer(MilvusSettings(milvus_uri="http://127.0.0.1:1"))
    if is_taken:
        server._check_version(version)
    else:
        with pytest.raises(BundleError, match=r"needs 2\.5 or newer"):
            server._check_version(version)
