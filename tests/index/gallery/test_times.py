"""Metadata of dates, times and large whole numbers: from the file that was built to a rebuilt gallery."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.index.conftest import NEVER, MakeBundle, make_unit_rows

N = 30
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def items() -> EmbeddingSet:
    """Every item a day later than the one before; every third lacks its day, every second its number."""
    return EmbeddingSet.from_arrays(
        make_unit_rows(np.random.default_rng(0), N),
        [f"c{row % 6}" for row in range(N)],
        [f"i{row}" for row in range(N)],
        {
            "when": [START + timedelta(days=row, hours=12) for row in range(N)],
            "day": [None if row % 3 == 0 else date(2024, 1, 1) + timedelta(days=row) for row in range(N)],
            "moment": np.arange(N).astype("datetime64[ns]"),
            "number": [None if row % 2 else 2**60 + row for row in range(N)],
        },
    )


CONDITIONS: list[tuple[dict[str, Any], set[int]]] = [
    ({"when": "2024-01-02T12:00:00Z"}, {1}),
    ({"when": "2024-01-02T21:00:00+09:00"}, {1}),
    ({"when": {"$gte": "2024-01-29T13:00+01:00"}}, {28, 29}),
    ({"when": {"$lt": "2024-01-02"}}, {0}),
    ({"when": {"$in": ["2024-01-01 12:00:00", "2024-01-05T12:00Z"]}}, {0, 4}),
    ({"day": "2024-01-02T00:00:00Z"}, {1}),
    ({"day": {"$lte": "2024-01-03"}}, {1, 2}),
    ({"day": {"$exists": False}}, set(range(0, N, 3))),
    ({"moment": {"$gt": "1970-01-01T00:00:00.000000027Z"}}, {28, 29}),
    ({"number": 2**60 + 2}, {2}),
    ({"number": 2**60 + 3}, set()),
    ({"number": {"$gt": 2**60 + 26}}, {28}),
]


def find(gallery: Gallery, condition: dict[str, Any]) -> set[str]:
    query = make_unit_rows(np.random.default_rng(1), 1)
    return {hit.id for hit in gallery.search(query, k=N + 5, filter=condition)[0]}


def test_times_are_compared_as_instants_before_and_after_a_rebuild(
    make_bundle: MakeBundle, items: EmbeddingSet, tmp_path: Path
) -> None:
    bundle = make_bundle(items)
    with Gallery.open(bundle) as gallery:
        for condition, rows in CONDITIONS:
            assert find(gallery, condition) == {f"i{row}" for row in rows}, condition
        shown = gallery.get("i1")
        assert shown is not None
        assert shown.metadata == {
            "when": "2024-01-02T12:00:00Z",
            "day": "2024-01-02",
            "moment": "1970-01-01T00:00:00.000000001Z",
        }
    new = StoredItem(
        "new",
        "c1",
        items.vectors[0],
        {"when": "2030-01-01T00:00:00+09:00", "day": "2029-12-31", "number": 2**62},
    )
    for round_ in range(3):  # written, rebuilt, opened again
        with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
            if round_ == 0:
                live.upsert([new])
            if round_ == 1:
                live.rebuild()
            for condition, rows in CONDITIONS:
                assert find(live.gallery, condition) - {"new"} == {f"i{row}" for row in rows}, condition
            assert find(live.gallery, {"when": "2029-12-31T15:00:00Z"}) == {"new"}
            assert find(live.gallery, {"day": {"$gte": "2029-12-31"}}) == {"new"}
            assert find(live.gallery, {"number": {"$gt": 2**61}}) == {"new"}


@pytest.mark.parametrize("value", ["tomorrow", "31/12/2029", 1_700_000_000, True])
def test_what_is_no_time_is_refused_with_its_form(
    make_bundle: MakeBundle, items: EmbeddingSet, tmp_path: Path, value: Any
) -> None:
    with LiveGallery.open(make_bundle(items), tmp_path / "data", NEVER) as live:
        with pytest.raises(
            InputError, match=r"'when' is a time, written as 2024-01-31 or 2024-01-31T12:00:00Z"
        ):
            find(live.gallery, {"when": value})
        with pytest.raises(InputError, match=r"metadata\.when: the field is a time, written as 2024-01-31"):
            live.upsert([StoredItem("new", "c1", items.vectors[0], {"when": value})])
