"""Writes, searches, rebuilds, backups and restarts in any order, against a dictionary and brute force.

Limits are tiny, so that rebuilds happen all the time; few distinct vectors, so that ties and duplicates do.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embeddings.similarity import compute_pair_similarities
from index.bundle import write_bundle
from index.gallery.backup import restore_backup
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem
from tests.index.conftest import KINDS, MODEL, make_items, make_small_config, make_unit_rows
from tests.index.evidence import check_class_sums, make_evidence_point, make_scorer, score_each

DIM = 6


def list_factors(size: int) -> list[int]:
    """Those of 2, 3 and 5 that divide a number."""
    return [factor for factor in (2, 3, 5) if size % factor == 0]


def describe(size: int | None) -> dict[str, Any]:
    """The metadata of an item of a size."""
    return {} if size is None else {"size": size, "factors": list_factors(size)}


POOL = make_unit_rows(np.random.default_rng(0), 24, DIM)
START = make_items(
    POOL[:12],
    [f"c{row % 3}" for row in range(12)],
    size=np.arange(12),
    factors=[list_factors(row) for row in range(12)],
)
SCORER = make_scorer("similarity")
TINY = RebuildLimits(buffer_rows=4, deleted_fraction=0.2, seed_block=5)
IDS = st.sampled_from([f"i{number}" for number in range(16)])
VECTORS = st.integers(0, len(POOL) - 1)
LABELS = st.sampled_from(["c0", "c1", "c2", "7"])
Row = tuple[str, int, int | None]  # label, vector of the pool, size


class Machine(RuleBasedStateMachine):
    """``model`` is what the gallery must be; ``kind`` is set by the test."""

    kind = "flat"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.bundle = self.folder / "bundle"
        deciding = make_evidence_point("similarity")
        write_bundle(
            self.bundle,
            name="machine",
            items=START,
            model_hash=MODEL,
            index_config=make_small_config(self.kind, m=4),
            operating_points=[deciding],
            active={"match": deciding.id},
        )
        self.model: dict[str, Row] = {f"i{row}": (f"c{row % 3}", row, row) for row in range(12)}
        self.backups: list[tuple[Path, dict[str, Row]]] = []
        self.data = self.folder / "data"
        self.live = LiveGallery.open(self.bundle, self.data, TINY)

    def teardown(self) -> None:
        self.live.close()
        shutil.rmtree(self.folder)

    @rule(
        rows=st.lists(st.tuples(IDS, LABELS, VECTORS, st.none() | st.integers(0, 20)), min_size=1, max_size=4)
    )
    def upsert(self, rows: list[tuple[str, str, int, int | None]]) -> None:
        chosen = {row[0]: row[1:] for row in rows}
        new = self.live.upsert(
            [
                StoredItem(name, label, POOL[vector], describe(size))
                for name, (label, vector, size) in chosen.items()
            ]
        )
        assert new == len(chosen.keys() - self.model.keys())
        self.model |= chosen

    @rule(ids=st.lists(IDS, max_size=4))
    def delete(self, ids: list[str]) -> None:
        assert self.live.delete(ids) == len(set(ids) & self.model.keys())
        for name in ids:
            self.model.pop(name, None)

    @rule(label=LABELS)
    def delete_where(self, label: str) -> None:
        gone = [name for name, row in self.model.items() if row[0] == label]
        assert sorted(self.live.delete_where({"label": label})) == sorted(gone)
        for name in gone:
            del self.model[name]

    @rule()
    def rebuild(self) -> None:
        self.live.wait()
        self.live.rebuild()

    @rule()
    def restart(self) -> None:
        self.live.close()
        self.live = LiveGallery.open(self.bundle, self.data, TINY)

    @precondition(lambda self: len(self.backups) < 2)
    @rule()
    def backup(self) -> None:
        out = self.folder / f"backup-{len(self.backups)}"
        self.live.backup(out)
        self.backups.append((out, dict(self.model)))

    @precondition(lambda self: self.backups)
    @rule()
    def restore(self) -> None:
        out, model = self.backups.pop()
        self.live.close()
        shutil.rmtree(self.data)
        restore_backup(out, self.data)
        shutil.rmtree(out)
        self.live = LiveGallery.open(self.bundle, self.data, TINY)
        self.model = model

    @rule(
        query=VECTORS,
        k=st.integers(1, 20),
        least=st.none() | st.integers(0, 20),
        factor=st.none() | st.sampled_from([2, 3, 5.0]),
        exact=st.booleans(),
    )
    def search(self, query: int, k: int, least: int | None, factor: int | None, exact: bool) -> None:
        condition: dict[str, Any] | None = None if least is None else {"size": {"$gte": least}}
        if condition and factor is not None:
            condition["factors"] = {"$contains": factor}
        if condition and not any(row[2] is not None for row in self.model.values()):
            condition = None
        kept = {
            name: row
            for name, row in self.model.items()
            if condition is None
            or (
                row[2] is not None
                and row[2] >= (least or 0)
                and (factor is None or factor in list_factors(row[2]))
            )
        }
        vector = POOL[query][None]
        expected = sorted(
            (
                (name, float(compute_pair_similarities(vector, POOL[row[1]][None])[0]))
                for name, row in kept.items()
            ),
            key=lambda pair: (-pair[1], pair[0]),
        )[:k]
        hits = self.live.gallery.search(vector, k, filter=condition, exact=exact)[0]
        assert [(hit.id, hit.similarity) for hit in hits] == expected
        for hit in hits:
            label, _, size = self.model[hit.id]
            assert (hit.label, hit.metadata) == (label, describe(size))

    @rule(query=VECTORS)
    def match(self, query: int) -> None:
        items = self.live.gallery.page(None, 1_000)
        scores = score_each(items, POOL[query], SCORER)
        found = self.live.gallery.match(POOL[query][None], candidates=10)[0].candidates
        expected = sorted(
            ((label, item_id, score) for label, (score, item_id, _) in scores.items()),
            key=lambda entry: (-entry[2], entry[0]),
        )
        assert [entry[:3] for entry in found] == expected

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        stored = self.live.gallery.page(None, 1_000)
        assert [item.id for item in stored] == sorted(self.model)
        assert self.live.gallery.n_items == len(self.model)
        for item in stored:
            label, vector, size = self.model[item.id]
            assert (item.label, item.metadata) == (label, describe(size))
            assert np.array_equal(item.vector, POOL[vector])
        check_class_sums(self.live.gallery.view, stored, SCORER)
        assert self.live.rebuild_error is None


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_writes_and_restarts(kind: str) -> None:
    machine = type(f"Machine_{kind}", (Machine,), {"kind": kind})
    case = machine.TestCase
    case.settings = settings(
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_writes_and_restarts_at_length(kind: str) -> None:
    case = type(f"Machine_{kind}", (Machine,), {"kind": kind}).TestCase
    case.settings = settings(
        max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()
