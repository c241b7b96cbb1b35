"""Search by class finds the classes and items that sorting everything finds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from embeddings.similarity import compute_pair_similarities
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows

RNG = np.random.default_rng(41)
# one class of 400 items around the first queries, 30 small ones elsewhere, and some of one item
CENTRE = RNG.normal(size=16)
VECTORS = np.concatenate(
    [
        CENTRE + 0.2 * RNG.normal(size=(400, 16)),
        RNG.normal(size=(120, 16)),
        -CENTRE + RNG.normal(size=(9, 16)),
    ]
).astype(np.float32)
LABELS = ["big"] * 400 + [f"c{n % 30}" for n in range(120)] + [f"s{n}" for n in range(9)]
ITEMS = make_items(VECTORS, LABELS, camera=np.arange(len(VECTORS)) % 3)
QUERIES = np.concatenate([ITEMS.vectors[:2], make_unit_rows(RNG, 4)])


def stored() -> dict[str, StoredItem]:
    columns = zip(ITEMS.ids.tolist(), ITEMS.labels.tolist(), ITEMS.vectors, strict=True)
    return {
        name: StoredItem(name, label, row, {"camera": number % 3})
        for number, (name, label, row) in enumerate(columns)
    }


def group_plainly(items: Iterable[StoredItem], query: np.ndarray, k: int, size: int) -> list[Any]:
    """The hits of one query, by sorting all items."""
    near = sorted(
        (-float(compute_pair_similarities(query[None], item.vector[None])[0]), item.id, item.label)
        for item in items
    )
    labels = list(dict.fromkeys(label for *_, label in near))[:k]
    return [
        (name, label, -distance)
        for wanted in labels
        for distance, name, label in [entry for entry in near if entry[2] == wanted][:size]
    ]


@pytest.mark.parametrize(("k", "size"), [(1, 1), (3, 1), (5, 4), (12, 7), (100, 2)])
@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_groups_are_those_of_sorting_everything(
    make_bundle: MakeBundle, tmp_path: Path, kind: str, k: int, size: int
) -> None:
    def expect(gallery: Gallery, items: dict[str, StoredItem], exact: bool) -> None:
        found = gallery.search(QUERIES, k, group_by="label", group_size=size, exact=exact)
        for query, hits in zip(QUERIES, found, strict=True):
            assert [hit[:3] for hit in hits] == group_plainly(items.values(), query, k, size)
        some = gallery.search(
            QUERIES, k, group_by="label", group_size=size, filter={"camera": 1}, exclude_ids=["i1"] * 6
        )
        kept = [item for item in items.values() if item.metadata.get("camera") == 1 and item.id != "i1"]
        for query, hits in zip(QUERIES, some, strict=True):
            assert [hit[:3] for hit in hits] == group_plainly(kept, query, k, size)

    bundle, items = make_bundle(ITEMS, make_small_config(kind, ef_search=400)), stored()
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        expect(live.gallery, items, exact=True)
        new = [StoredItem(f"n{n}", f"c{n % 33}", row) for n, row in enumerate(make_unit_rows(RNG, 20))]
        # the same vector under a smaller id, in another class
        new.append(StoredItem("a", "s1", items["i0"].vector))
        live.upsert(new)
        gone = [f"i{n}" for n in range(0, 529, 7)]
        live.delete(gone)
        items = {n: i for n, i in (items | {item.id: item for item in new}).items() if n not in gone}
        expect(live.gallery, items, exact=False)


def test_sizes_that_cannot_be_are_refused(make_bundle: MakeBundle) -> None:
    with Gallery.open(make_bundle(ITEMS)) as gallery:
        with pytest.raises(InputError, match="group_size must be a whole number from 1"):
            gallery.search(QUERIES, group_by="label", group_size=0)
        with pytest.raises(InputError, match="k must be a whole number from 1"):
            gallery.search(QUERIES, 0, group_by="label")
