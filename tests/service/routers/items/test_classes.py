"""Classes over HTTP: worst first, searched, and what the gallery says of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import ServiceBundle, serve

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a/b",
    "..",
    ".",
    " a ",
    "‮evil",
    "x" * 512,
    "%2F",
    "ä?#&",
    "new\nline",
]


def test_the_worst_come_first(client: Client, bundle: ServiceBundle) -> None:
    page = client.classes(limit=1000)
    assert (page.total, page.measured, page.next_offset) == (40, 40, None)
    assert [entry.utility for entry in page.classes] == sorted(entry.utility or 0 for entry in page.classes)
    point = bundle.points["verify"]
    assert page.rates.model_dump() == {
        "source": "holdout",
        "at": "threshold",
        "operating_point": client.info().operating_points.verify.id,  # type: ignore[union-attr]
        "threshold": point.threshold,
    }
    expected = {entry.label: (entry.far, entry.frr, entry.n_items) for entry in point.per_class}
    assert {e.label: (e.far, e.frr, e.measured_items) for e in page.classes} == expected
    assert {entry.items for entry in page.classes} == {8}


@pytest.mark.parametrize("sort", ["far", "frr", "items", "label"])
def test_other_orders(client: Client, sort: Any) -> None:
    entries = client.classes(sort=sort, limit=1000).classes
    keys = [entry.label if sort == "label" else -(getattr(entry, sort) or 0) for entry in entries]
    assert keys == sorted(keys)


def test_pages_and_search(client: Client) -> None:
    seen, offset = [], 0
    while True:
        page = client.classes(offset=offset, limit=7)
        seen += [entry.label for entry in page.classes]
        if page.next_offset is None:
            break
        offset = page.next_offset
    assert seen == [entry.label for entry in client.classes(limit=1000).classes]
    found = client.classes(search="CLASS-3")
    assert {entry.label for entry in found.classes} == {"class-3", *(f"class-3{n}" for n in range(10))}
    assert found.total == 11
    assert client.classes(search="nothing").classes == []


def test_a_class_is_compared_with_itself_and_with_others(client: Client, bundle: ServiceBundle) -> None:
    label = client.classes().classes[0].label
    detail = client.describe_class(label)
    own = bundle.gallery.labels == label
    vectors = bundle.gallery.vectors.astype(np.float64)
    genuine = (vectors[own] @ vectors[own].T)[np.triu_indices(8, 1)]
    impostor = vectors[own] @ vectors[~own].T
    assert (detail.items, detail.compared_items, detail.compared_others) == (8, 8, 312)
    assert (detail.genuine_pairs, detail.impostor_pairs) == (28, 8 * 312)
    assert detail.tightness == pytest.approx(genuine.mean(), abs=1e-6)
    threshold = detail.threshold
    assert threshold == bundle.points["verify"].threshold
    assert detail.genuine_rejected == (genuine.astype(np.float32) < np.float32(threshold)).sum()
    assert detail.impostor_accepted == (impostor.astype(np.float32) >= np.float32(threshold)).sum()
    assert detail.histogram is not None
    assert sum(detail.histogram.genuine) == 28
    assert sum(detail.histogram.impostor) == 8 * 312
    assert [pair.score for pair in detail.hardest_genuine] == pytest.approx(np.sort(genuine)[:10], abs=1e-6)
    worst = detail.hardest_impostor[0]
    assert worst.score == pytest.approx(impostor.max(), abs=1e-6)
    assert worst.b_label != label
    assert worst.accepted == (np.float32(worst.score) >= np.float32(threshold))
    assert detail.lookalikes[0].label == worst.b_label
    assert detail.lookalikes[0].score == worst.score
    assert [summary.label for summary in detail.rates] == [label]


def test_a_large_class_is_sampled_and_the_answer_says_so(bundle: ServiceBundle, start: Any) -> None:
    at = start(bundle.path, class_items=4, class_others=20)
    with Client(at) as client:
        detail = client.describe_class("class-0")
    assert (detail.items, detail.compared_items, detail.compared_others) == (8, 4, 20)
    assert (detail.genuine_pairs, detail.impostor_pairs) == (6, 80)


def test_items_of_a_class_are_paged(client: Client) -> None:
    first = client.items(label="class-5", limit=5)
    second = client.items(first.next_cursor, limit=5, label="class-5")
    ids = [item.id for item in (*first.items, *second.items)]
    assert ids == sorted(f"item-{row}" for row in range(40, 48))
    assert second.next_cursor is None
    assert client.items(label="nobody").items == []


def test_what_is_written_counts_at_once(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.classes(search="new").total == 0
        client.upsert([{"id": f"n{n}", "label": "new", "vector": bundle.get_vector(n)} for n in range(3)])
        (entry,) = client.classes(search="new").classes
        assert (entry.items, entry.measured_items, entry.utility) == (3, 0, None)
        assert client.classes(limit=1000).classes[-1].label == "new", "what is not measured comes last"
        detail = client.describe_class("new")
        assert (detail.items, detail.rates) == (3, [])
        assert detail.lookalikes[0].label == "class-0"
        client.delete_items(ids=["n0", "n1"])
        assert client.describe_class("new").tightness is None
        client.delete_items(filter={"label": "class-0"})
        gone = client.describe_class("class-0")
        assert (gone.items, gone.histogram, gone.hardest_impostor) == (0, None, [])
        assert gone.rates[0].measured_items == 8
        job = client.compute_report("gallery")
        client.wait(job)
        measured = client.classes(source="gallery", limit=1000)
        assert measured.rates.at == "threshold", "the one that decides"
        assert (measured.total, measured.measured) == (40, 39), "a class of one item has no rates"


def test_hostile_labels_are_only_text(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        client.upsert(
            [
                {"id": f"h{n}-{k}", "label": label, "vector": bundle.get_vector(2 * n + k)}
                for n, label in enumerate(HOSTILE)
                for k in range(2)
            ]
        )
        for n, label in enumerate(HOSTILE):
            detail = client.describe_class(label)
            assert (detail.label, detail.items) == (label, 2)
            assert [item.id for item in client.items(label=label).items] == [f"h{n}-0", f"h{n}-1"]


def test_an_unknown_class_is_not_found(client: Client) -> None:
    with pytest.raises(ServiceError, match="No item has the label 'nobody'"):
        client.describe_class("nobody")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "offset=-1", "sort=best", "source=feedback", "search=" + "x" * 513]
)
def test_what_is_out_of_bounds_is_refused(address: str, query: str) -> None:
    assert httpx.get(f"{address}/v1/classes?{query}").status_code == 422


def test_without_points_classes_have_the_rates_of_the_report(
    bundle_without_points: ServiceBundle, start: Any
) -> None:
    with Client(start(bundle_without_points.path)) as client:
        page = client.classes()
        assert (page.rates.at, page.rates.threshold) == ("range", None)
        detail = client.describe_class(page.classes[0].label)
        assert (detail.threshold, detail.genuine_rejected) == (None, None)
        assert detail.hardest_genuine[0].accepted is None
