"""Writes, rebuilds, failures and closing at the worst moment, forced: readers see what the database holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from index.gallery.gallery_items import Closed
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem
from index.search.generation import Generation
from index.store.document_store import StoreInUse
from index.store.item_store import ItemStore
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows

BASE = make_items(make_unit_rows(np.random.default_rng(0), 60))
NEW = make_unit_rows(np.random.default_rng(1), 40)


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """A small HNSW bundle that decides."""
    return make_bundle(BASE, make_small_config("hnsw"), match=0.9, verify=0.9)


@pytest.fixture
def live(bundle: Path, tmp_path: Path) -> Iterator[LiveGallery]:
    """Written to by the test alone."""
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as opened:
        yield opened


@dataclass
class Gate:
    """A function that waits at its beginning until it is let through."""

    wrapped: Callable[..., Any]
    reached: Event = field(default_factory=Event)
    open: Event = field(default_factory=Event)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.reached.set()
        assert self.open.wait(30)
        return self.wrapped(*arguments, **named)


def gated(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The next build of a generation waits."""
    gate = Gate(Generation.build)
    monkeypatch.setattr(Generation, "build", gate)
    return gate


def new(*numbers: int) -> list[StoredItem]:
    """Items n0, n1, ..., each with a vector of its own."""
    return [StoredItem(f"n{number}", "new", NEW[number]) for number in numbers]


def check(live: LiveGallery, *expected: str) -> None:
    """Database and searches agree that exactly these new items are there beside the bundle's."""
    stored = {item.id for item in live.gallery.page(None, 1_000)}
    assert stored - set(BASE.ids) == set(expected)
    assert live.gallery.n_items == len(stored)
    for exact in (False, True):
        assert {hit.id for hit in live.gallery.search(NEW[0], 1_000, exact=exact)[0]} == stored


def test_a_search_under_way_ends_and_later_ones_are_refused(
    live: LiveGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.upsert(new(0))
    search = Generation.search
    gate = Gate(search)
    monkeypatch.setattr(Generation, "search", lambda *arguments, **named: gate(*arguments, **named))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(live.gallery.search, NEW[0], 100)
        assert gate.reached.wait(30)
        live.close()
        gate.open.set()
        assert len(answer.result(30)[0]) == 61
    for query in (
        lambda: live.gallery.search(NEW[0]),
        lambda: live.gallery.match(NEW[0]),
        lambda: live.gallery.n_items,
        lambda: live.gallery.get("n0"),
        lambda: live.gallery.page(),
        lambda: live.upsert(new(1)),
        lambda: live.delete(["n0"]),
        lambda: live.rebuild(),
    ):
        with pytest.raises(Closed, match="open it again"):
            query()
    live.close()


def test_the_folder_is_not_released_before_a_rebuild_has_ended(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveGallery.open(bundle, tmp_path / "data", NEVER)
    live.upsert(new(0))
    gate = gated(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        rebuilt = pool.submit(live.rebuild)
        assert gate.reached.wait(30)
        closed = pool.submit(live.close)
        with pytest.raises(StoreInUse):
            LiveGallery.open(bundle, tmp_path / "data", NEVER)
        assert not closed.done()
        assert len(live.gallery.search(NEW[0], 100)[0]) == 61
        gate.open.set()
        rebuilt.result(30)
        closed.result(30)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as again:
        check(again, "n0")
        stats = again.gallery.compute_stats()
        assert (stats["buffer"], stats["deleted"]) == (0, 0)


@pytest.mark.parametrize("method", ["switch", "read_changes_after"])
@pytest.mark.parametrize("takes_effect", [True, False])
def test_a_swap_that_fails_halfway_changes_no_answer(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, takes_effect: bool
) -> None:
    original = getattr(ItemStore, method)

    def fails(*arguments: Any) -> Any:
        monkeypatch.setattr(ItemStore, method, original)
        if takes_effect:
            original(*arguments)
        raise OSError(5, "Input/output error")

    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert(new(0, 1))
        live.delete(["n1", "i3"])
        monkeypatch.setattr(ItemStore, method, fails)
        with pytest.raises(OSError, match="Input/output"):
            live.rebuild()
        for number in (2, 3):
            stored = {"n0"} | {f"n{later}" for later in range(2, number)}
            check(live, *stored)
            assert live.gallery.view.get_vector("i3") is None
            live.upsert(new(number))
        live.rebuild()
        check(live, "n0", "n2", "n3")
        assert len(list((tmp_path / "data" / "generations").iterdir())) == 1
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        check(live, "n0", "n2", "n3")


@pytest.mark.parametrize("method", ["upsert", "delete"])
@pytest.mark.parametrize("takes_effect", [True, False])
def test_after_a_write_that_fails_readers_see_what_the_database_holds(
    live: LiveGallery, monkeypatch: pytest.MonkeyPatch, method: str, takes_effect: bool
) -> None:
    live.upsert(new(0, 1))
    original = getattr(ItemStore, method)

    def fails(*arguments: Any) -> Any:
        monkeypatch.undo()
        if takes_effect:
            original(*arguments)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ItemStore, method, fails)
    write: Any = live.upsert if method == "upsert" else live.delete
    with pytest.raises(OSError, match="Input/output"):
        write(new(2) if method == "upsert" else ["n1"])
    expected = {"n0", "n1"}
    if takes_effect:
        expected = {"n0", "n1", "n2"} if method == "upsert" else {"n0"}
    check(live, *expected)
    live.upsert(new(3))
    check(live, "n3", *expected)


def test_a_write_that_memory_cannot_show_is_shown_by_the_next(
    live: LiveGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("index.gallery.overlay.Generation.build_buffer", none_left)
    with pytest.raises(MemoryError):
        live.upsert(new(0))
    assert live.gallery.n_items == 60
    monkeypatch.undo()
    live.upsert(new(1))
    check(live, "n0", "n1")


def test_after_a_failed_rebuild_writes_go_on_and_it_is_not_tried_with_each(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def full(*_: object) -> None:
        tries.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("index.gallery.generation_folders.fsync_and_hash", full)
    with LiveGallery.open(bundle, tmp_path / "data", RebuildLimits(buffer_rows=1)) as live:
        for number in range(0, 10, 2):
            live.upsert(new(number, number + 1))
            live.wait()
        assert len(tries) == 1
        check(live, *(f"n{number}" for number in range(10)))
        assert "No space left" in str(live.rebuild_error)
        assert not list((tmp_path / "data" / "generations").iterdir())
        monkeypatch.undo()
        live._rebuilder._retry_at = 0.0
        live.upsert(new(10))
        live.wait()
        assert live.rebuild_error is None
        check(live, *(f"n{number}" for number in range(11)))
        assert live.gallery.compute_stats()["buffer"] == 0


def test_what_is_written_during_a_rebuild_starts_the_next(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gated(monkeypatch)
    with LiveGallery.open(bundle, tmp_path / "data", RebuildLimits(buffer_rows=1)) as live:
        live.upsert(new(0, 1))
        assert gate.reached.wait(30)
        live.upsert(new(2, 3))
        gate.open.set()
        live.wait()
        assert live.gallery.compute_stats()["buffer"] == 0
        check(live, "n0", "n1", "n2", "n3")


def test_an_item_erased_while_it_is_built_in_is_gone_and_the_next_rebuild_drops_it(
    live: LiveGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.upsert(new(0))
    gate = gated(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(live.rebuild)
        assert gate.reached.wait(30)
        live.delete(["n0"])
        second = pool.submit(live.rebuild)
        gate.open.set()
        first.result(30)
        second.result(30)
    check(live)
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or NEW[0].tobytes() not in file.read_bytes(), file


def test_erasing_everything_leaves_no_file_of_the_index(bundle: Path, tmp_path: Path) -> None:
    limits = RebuildLimits(buffer_rows=10**9, deleted_fraction=0.2)
    with LiveGallery.open(bundle, tmp_path / "data", limits) as live:
        live.upsert(new(0))
        live.rebuild()
        live.delete([*BASE.ids.tolist(), "n0"])
        live.wait()
        assert (live.gallery.n_items, live.gallery.compute_stats()["generation"]) == (0, "empty")
        assert live.gallery.search(NEW[0], 5, filter={"label": "new"}, exact=True) == [[]]
        assert list((tmp_path / "data" / "generations").iterdir()) == []
        for file in (tmp_path / "data").rglob("*"):
            for vector in (NEW[0], BASE.vectors[0]):
                assert not file.is_file() or vector.tobytes() not in file.read_bytes(), file
    with LiveGallery.open(bundle, tmp_path / "data", limits) as live:
        assert live.gallery.n_items == 0
        assert live.gallery.search(BASE.vectors[:2], 5) == [[], []]
        live.rebuild()
        live.backup(tmp_path / "backup")
        live.upsert(new(1))
        assert [hit.id for hit in live.gallery.search(NEW[1], 5)[0]] == ["n1"]
    with LiveGallery.open(bundle, tmp_path / "data", limits) as live:
        assert live.gallery.n_items == 1
