"""One contract for every engine and every store: the same calls give the same answers, to the last bit.

The answers are compared with those of a twin that knows no engine and no store: all similarities by the one
kernel, sorted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.manifest import IndexKind
from embeddings.similarity import compute_pair_similarities
from index.engines.registry import ENGINES
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.gallery.overlay import collect_items
from index.items.filters import select_rows
from index.items.stored_item import StoredItem
from index.search.generation import Generation
from tests.engines.galleries import (
    CONFIGS,
    DIM,
    get_edge,
    hash_model,
    make_gallery,
    make_point,
    make_queries,
    normalise,
    write_gallery,
)
from tests.index.conftest import NEVER

FILTERS: list[dict[str, Any] | None] = [
    None,
    {"label": "c07"},
    {"camera": 1},
    {"camera": {"$ne": 1}, "good": True},
    {"place": 'north "a\\b"'},
    {"weight": {"$gt": 5, "$lte": 30}},
    {"weight": {"$exists": False}},
    {"weight": {"$nin": [3.0, 4.0]}},
    {"tags": {"$contains": 'o"ld'}, "camera": 0},
    {"$not": {"$or": [{"tags": {"$contains": "red"}}, {"marks": {"$contains": 2}}]}},
    {"$not": {"label": {"$in": [f"c{number:02}" for number in range(18)]}}},
    {"$or": [{"seen": {"$lt": "1970-01-02"}}, {"seen": {"$gte": "1970-01-06T06:00:00Z"}}]},
    {"$and": [{"camera": 0}, {"$not": {"$or": [{"good": True}, {"place": "süd"}]}}]},
]
Answers = list[tuple[Any, ...]]


@dataclass
class Twin:
    """What a gallery holds, in plain Python; answers by comparing with everything."""

    items: dict[str, StoredItem]

    def rank(self, query: NDArray[np.float32], allowed: set[str] | None) -> list[tuple[str, str, float]]:
        items = [item for name, item in self.items.items() if allowed is None or name in allowed]
        if not items:
            return []
        rows = np.stack([item.vector for item in items])
        near = compute_pair_similarities(np.repeat(query[None], len(rows), axis=0), rows).tolist()
        ranked = sorted(zip(near, items, strict=True), key=lambda entry: (-entry[0], entry[1].id))
        return [(item.id, item.label, similarity) for similarity, item in ranked]

    def select(self, condition: Mapping[str, Any] | None) -> set[str] | None:
        """The items that a filter holds for."""
        if condition is None:
            return None
        items = list(self.items.values())
        table = Generation.build_buffer(
            collect_items([items], len(items), DIM, fields={"seen": "time"}), {}
        ).items
        return set(table.ids.take(select_rows(condition, table)))


def ask(gallery: Gallery) -> Answers:
    """The answers to all queries under all filters, and of some searches."""
    answers: Answers = []
    for condition in FILTERS:
        for decision in gallery.match(make_queries(), filter=condition):
            answers.append((decision.decision, decision.label, decision.id, decision.similarity))
        for hits in gallery.search(make_queries()[::6], 40, filter=condition):
            answers += [(hit.id, hit.label, hit.similarity) for hit in hits]
    return answers


def expect(twin: Twin, threshold: float) -> Answers:
    """What the twin answers."""
    answers: Answers = []
    for condition in FILTERS:
        allowed = twin.select(condition)
        ranked = [twin.rank(query, allowed) for query in make_queries()]
        for items in ranked:
            best_id, best_label, best = items[0] if items else (None, None, None)
            accepted = best is not None and np.float32(best) >= np.float32(threshold)
            answers.append(("match" if accepted else "unknown", best_label, best_id, best))
        for items in ranked[::6]:
            answers += items[:40]
    return answers


def change(live: LiveGallery, twin: Twin) -> None:
    """Writes of every kind: new items, one in place of another, deletions by id and by filter."""
    rng = np.random.default_rng(9)
    rows = normalise(make_queries()[12:18] + 0.02 * rng.normal(size=(6, DIM)))
    new = [StoredItem(f"new-{n}", "new", row) for n, row in enumerate(rows)]
    moved = StoredItem("i100", "moved", rows[0], {"tags": ["red", 'o"ld'], "camera": 0, "marks": []})
    assert live.upsert([*new, moved]) == len(new)
    twin.items |= {item.id: item for item in [*new, moved]}
    gone = ["i020", "i021", "i040", "new-3", *(f"i{n:03}" for n in range(130, 140))]
    assert live.delete(gone) == len(gone)
    where = {"label": {"$eq": "c15"}, "camera": 2}
    allowed = twin.select(where)
    assert allowed is not None
    assert set(live.delete_where(where)) == allowed
    for name in [*gone, *allowed]:
        del twin.items[name]


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_calls_give_the_same_answers(
    kind: IndexKind,
    store: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = request.getfixturevalue("database") if store == "postgresql" else None
    if ENGINES[kind].is_remote:
        request.getfixturevalue("milvus")
    # so that filters reach the engines
    monkeypatch.setattr("index.search.generation.EXACT_ROWS", 0)
    monkeypatch.setattr(ENGINES[kind], "count_comparable_rows", lambda *_: 0)
    model_hash, threshold = hash_model(f"{kind} {store}"), 0.9
    bundle = write_gallery(tmp_path / "bundle", kind, model_hash, threshold)
    gallery = make_gallery()
    columns = Generation.build_buffer(gallery, {}).items
    twin = Twin(
        {
            name: StoredItem(name, label, row, columns.get_metadata(number))
            for number, (name, label, row) in enumerate(
                zip(gallery.ids.tolist(), gallery.labels.tolist(), gallery.vectors, strict=True)
            )
        }
    )
    with LiveGallery.open(bundle, tmp_path / "data", NEVER, database=database) as live:
        assert live.gallery.compute_stats()["kind"] == kind
        assert ask(live.gallery) == expect(twin, threshold)
        # a threshold on the very similarity of a query: accepted on it and below, not above
        for query in (0, 20, 21):
            edge = get_edge(query)
            above = np.nextafter(edge, np.float32(9))
            for at, decision in ((edge - np.float32(1e-6), "match"), (edge, "match"), (above, "unknown")):
                live.gallery.decide_by(make_point(model_hash, float(at)))
                assert live.gallery.match(make_queries()[query])[0].decision == decision, (query, at)
        live.gallery.decide_by(make_point(model_hash, threshold))
        change(live, twin)
        expected = expect(twin, threshold)
        assert ask(live.gallery) == expected, "every write is seen at once"
        with Gallery.follow(bundle, tmp_path / "data", database) as follower:
            assert ask(follower) == expected, "by other processes, too"
            live.rebuild()
            assert live.gallery.compute_stats()["buffer"] == 0
            assert ask(live.gallery) == expected, "also once they are in the index"
            assert follower.match(make_queries()) == live.gallery.match(make_queries())
    with LiveGallery.open(bundle, tmp_path / "data", NEVER, database=database) as live:
        assert ask(live.gallery) == expected, "after a restart"
