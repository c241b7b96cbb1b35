"""Sums of classes after any writes are those of a fresh computation, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decision.decider import Decider, compute_densities
from index.gallery.live_gallery import LiveGallery
from index.gallery.overlay import Overlay, collect_items
from index.items.class_sums import ClassSums
from index.items.stored_item import StoredItem
from index.search.generation import Generation
from index.store.item_store import Changes
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows
from tests.index.evidence import COHORT, check_class_sums, make_arrays, make_evidence_point, make_scorer

OPERATIONS = 10_000
POOL = make_unit_rows(np.random.default_rng(1), 50)


def test_after_ten_thousand_upserts_and_deletes() -> None:
    rng = np.random.default_rng(2)
    scorer = make_scorer("all")
    deciders = [Decider(make_evidence_point("all"), scorer)]
    overlay, items, rebuilds = Overlay.from_generation(None, deciders), {}, 0
    for operation in range(OPERATIONS):
        names = [f"i{number}" for number in rng.integers(0, 300, rng.integers(1, 4))]
        written = []
        if rng.random() < 0.6:
            written = [
                StoredItem(name, f"c{rng.integers(20)}", POOL[rng.integers(len(POOL))])
                for name in dict.fromkeys(names)
            ]
        overlay = overlay.apply(Changes(written, names))
        for name in names:
            items.pop(name, None)
        items |= {item.id: item for item in written}
        if rng.random() < 0.002 and items:
            rebuilds += 1
            everything = collect_items([list(items.values())], len(items), 16)
            densities = compute_densities(deciders, everything.vectors, lambda of=everything: of.labels)
            generation = Generation.build(everything, make_small_config("flat"), densities)
            overlay = Overlay.from_generation(generation, deciders)
        if operation % 1_000 == 999:
            check_class_sums(overlay.build_view(16, {}), items.values(), scorer)
    assert rebuilds > 5


def test_after_a_restart_and_a_rebuild(make_bundle: MakeBundle, tmp_path: Path) -> None:
    rng, scorer, deciding = np.random.default_rng(3), make_scorer("all"), make_evidence_point("all")
    bundle = make_bundle(
        make_items(make_unit_rows(rng, 40)),
        operating_points=[deciding],
        active={"match": deciding.id, "verify": None},
        cohort=COHORT,
        class_arrays=[make_arrays("all")],
    )
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem(f"n{n}", f"c{n % 13}", row) for n, row in enumerate(make_unit_rows(rng, 30))])
        live.upsert([StoredItem("i1", "c4", POOL[0]), StoredItem("i2", "new", POOL[1])])
        live.delete([f"i{n}" for n in range(0, 40, 10)] + ["n3"])
        stored = live.gallery.page(limit=1_000)
        check_class_sums(live.gallery.view, stored, scorer)
    for again in (lambda live: None, LiveGallery.rebuild):
        with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
            again(live)
            check_class_sums(live.gallery.view, stored, scorer)


def test_a_block_of_rows_that_ends_within_a_class(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(4)
    vectors, codes = make_unit_rows(rng, 100), rng.integers(0, 5, 100)
    whole = ClassSums.from_rows(vectors, codes, 6, {"x": vectors[:, 0]})
    monkeypatch.setattr("index.items.class_sums.NUMBERS_AT_ONCE", 7 * 16)
    parts = ClassSums.from_rows(vectors, codes, 6, {"x": vectors[:, 0]})
    np.testing.assert_array_equal(whole.vectors, parts.vectors)
    np.testing.assert_array_equal(whole.densities["x"], parts.densities["x"])
    assert parts.counts.tolist() == np.bincount(codes, minlength=6).tolist()
