"""Readers of a data folder that another process writes see every write acknowledged before they ask."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from common.errors import BundleError
from index.gallery.gallery import Gallery
from index.gallery.gallery_items import Closed
from index.gallery.generation_folders import Generations
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.item_store import DATABASE_FILE
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows

ROOM = Path(__file__).parents[1]
BASE = make_items(make_unit_rows(np.random.default_rng(0), 30))
NEW = make_unit_rows(np.random.default_rng(1), 12)


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """A small HNSW bundle that decides."""
    return make_bundle(BASE, make_small_config("hnsw", m=4), match=0.9)


@contextmanager
def writer(bundle: Path, data: Path) -> Iterator[Callable[..., None]]:
    """Another process that has written when the call returns."""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, ROOM / "writer_process.py", bundle, data],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def send(**words: Any) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield send
        process.stdin.close()
        assert process.wait(60) == 0


def test_another_process_sees_each_acknowledged_write_through_rebuilds(bundle: Path, tmp_path: Path) -> None:
    dice = random.Random(0)
    state = dict(zip(BASE.ids.tolist(), BASE.labels.tolist(), strict=True))
    generations, stop = set(), Event()
    with (
        writer(bundle, tmp_path / "data") as send,
        Gallery.follow(bundle, tmp_path / "data") as reader,
    ):

        def under_load() -> int:
            searched = 0
            while not stop.is_set():
                hits = reader.search(NEW[:2], 100, filter={"place": {"$exists": False}})
                assert all(len({hit.id for hit in of_query}) == len(of_query) for of_query in hits)
                searched += 1
            return searched

        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(under_load)
            try:
                for turn in range(80):
                    ids = [f"i{number}" for number in dice.sample(range(45), 3)]
                    if turn % 20 == 19:
                        send(rebuild=True)
                    elif dice.random() < 0.7:
                        label = f"turn {turn}"
                        send(upsert={name: (label, NEW[dice.randrange(12)].tolist()) for name in ids})
                        state |= dict.fromkeys(ids, label)
                    else:
                        send(delete=ids)
                        state = {name: label for name, label in state.items() if name not in ids}
                    for exact in (False, True):
                        hits = reader.search(NEW[0], 100, exact=exact)[0]
                        assert {hit.id: hit.label for hit in hits} == state
                    assert reader.n_items == len(state)
                    generations.add(reader.compute_stats()["generation"])
            finally:
                stop.set()
            assert load.result(60) > 0
    assert len(generations) > 4


def test_a_generation_removed_while_it_is_opened_is_followed_to_the_next(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_named = Generations.open
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem("a", "x", NEW[0])])
        live.rebuild()

        def late(self: Generations, name: str, *arguments: Any) -> Any:
            monkeypatch.undo()
            live.upsert([StoredItem("b", "x", NEW[1])])
            live.delete(["i3"])
            live.rebuild()
            live.upsert([StoredItem("c", "x", NEW[2])])
            return open_named(self, name, *arguments)

        monkeypatch.setattr(Generations, "open", late)
        with Gallery.follow(bundle, tmp_path / "data") as reader:
            assert {hit.id for hit in reader.search(NEW[0], 100)[0]} == {*BASE.ids, "a", "b", "c"} - {"i3"}


def test_an_index_file_that_was_changed_is_not_opened(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live, Gallery.follow(bundle, data) as reader:
        live.upsert([StoredItem("a", "x", NEW[0])])
        live.rebuild()
        (index,) = data.glob("generations/*/graph.npy")
        content = bytearray(index.read_bytes())
        content[-1] ^= 1
        index.write_bytes(content)
        for _ in range(2):
            with pytest.raises(BundleError, match=r"graph\.npy"):
                reader.search(NEW[0])
        live.rebuild()
        assert reader.search(NEW[0], 1)[0][0].id == "a"


def test_emptied_filled_and_closed(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        with Gallery.follow(bundle, tmp_path / "data") as reader:
            live.delete(BASE.ids.tolist())
            live.rebuild()
            assert reader.search(NEW[0]) == [[]]
            live.upsert([StoredItem("a", "x", NEW[0], {"place": 1})])
            assert [hit.id for hit in reader.search(NEW[0], filter={"place": 1})[0]] == ["a"]
            stored = reader.get("a")
            assert stored is not None
            assert [item.id for item in reader.page()] == ["a"]
            assert reader.match(NEW[0])[0].id == "a"
        with pytest.raises(Closed):
            reader.search(NEW[0])
        with pytest.raises(Closed):
            reader.get("a")
    with Gallery.follow(bundle, tmp_path / "data") as reader:
        assert reader.n_items == 1


def test_a_folder_without_items_or_of_another_model_is_refused(
    bundle: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="not an item store"):
        Gallery.follow(bundle, tmp_path / "nothing")
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    other = make_bundle(BASE, name="other", model_hash="e" * 64)
    with pytest.raises(BundleError, match="holds items of model aaaa"):
        Gallery.follow(other, tmp_path / "data")
    golden = ROOM / "golden" / "1" / "backup" / DATABASE_FILE
    (tmp_path / "old").mkdir()
    shutil.copyfile(golden, tmp_path / "old" / DATABASE_FILE)
    with pytest.raises(BundleError, match="writer has to open it first"):
        Gallery.follow(bundle, tmp_path / "old")


def test_a_reader_never_writes(bundle: Path, tmp_path: Path) -> None:
    LiveGallery.open(bundle, tmp_path / "data", NEVER).close()
    before = {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    with Gallery.follow(bundle, tmp_path / "data") as reader:
        assert reader.n_items == 30
    after = {file: file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    assert {
        file: content
        for file, content in after.items()
        if "-wal" not in file.name and "-shm" not in file.name
    } == before
