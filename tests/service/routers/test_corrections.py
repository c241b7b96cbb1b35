"""Corrections: a query that is not of a class is never answered with it again, until that is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import ServiceBundle, serve
from tests.service.routers.test_unknowns import ask, make_strangers


@pytest.fixture
def client(bundle: ServiceBundle, tmp_path: Path) -> Iterator[Client]:
    """A service with a data folder."""
    with serve(bundle.path, data=tmp_path, max_corrections=50) as at, Client(at, retries=0) as connected:
        yield connected


def make_query(bundle: ServiceBundle, row: int, seed: int = 0) -> Any:
    """A vector near an item, which is a match of its class."""
    vector = bundle.gallery.vectors[row] + 0.02 * np.random.default_rng(seed).normal(size=16)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.mark.parametrize("how", ["decision", "vector", "kept"])
def test_a_corrected_query_is_never_answered_so_again(
    bundle: ServiceBundle, tmp_path: Path, how: str
) -> None:
    query, other = make_query(bundle, 0), make_query(bundle, 0, seed=1)
    label = str(bundle.gallery.labels[0])
    with serve(bundle.path, data=tmp_path, keep_unknowns="all") as at, Client(at) as client:
        decided = client.match(query[None]).results[0]
        assert (decided.decision, decided.label) == ("match", label)
        given = {
            "decision": {"decision_id": decided.decision_id},
            "vector": {"vector": query.tolist()},
            "kept": {"unknown": client.unknowns(limit=1).unknowns[0].id},
        }[how]
        said = client.correct(label, **given)
        without = client.match(query[None], filter={"label": {"$ne": label}}).results[0]
        rounded = {"vector": [round(float(value), 4) for value in query]}
        half = {"vector": query.astype(np.float16).astype(float).tolist()}
        twice = {"vectors": [query.tolist(), query.tolist()]}
        for again in ([{"vector": query.tolist()}], [rounded], [half], [twice], query[None]):
            answer = client.match(again, candidates=3).results[0]
            assert answer.label != label
            assert label not in {candidate.label for candidate in answer.candidates}
            assert (answer.decision, answer.label) == (without.decision, without.label)
        assert client.match([{"vector": other.tolist()}]).results[0].label == label
        filtered = client.match(query[None], filter={"label": label}).results[0]
        assert (filtered.decision, filtered.label) == ("unknown", None)
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.match(query[None]).results[0].label != label, "corrections outlast a restart"
        client.delete_feedback(said.id)
        assert client.match(query[None]).results[0].label == label


def test_an_item_is_corrected_by_its_id_and_its_vector(client: Client, bundle: ServiceBundle) -> None:
    label = client.match([{"id": "item-0"}]).results[0].label
    assert label is not None
    client.correct(label, id="item-0")
    assert client.match([{"id": "item-0"}]).results[0].label != label
    assert client.match([{"vector": bundle.get_vector(0)}]).results[0].label != label
    assert client.match([{"id": "item-1"}]).results[0].label == label
    client.delete("item-0")
    assert client.feedback_page().total == 0, "what is said about an item goes with it"
    assert client.match([{"vector": bundle.get_vector(0)}]).results[0].label == label


def test_corrections_are_listed_and_counted_as_false_matches(client: Client, bundle: ServiceBundle) -> None:
    label = str(bundle.gallery.labels[0])
    decided = client.match(make_query(bundle, 0)[None]).results[0]
    first = client.feedback(decision_id=decided.decision_id, same=True)
    assert (first.total, first.decision, first.score) == (1, "match", decided.score)
    second = client.correct(label, decision_id=decided.decision_id)
    assert (second.total, second.id) == (1, first.id), "one verdict a decision"
    client.feedback(a={"id": "item-1"}, b={"id": "item-2"}, same=True)
    client.correct(label, vector=make_query(bundle, 3).tolist())
    page = client.feedback_page(limit=2)
    assert (page.total, page.corrections, len(page.feedback)) == (3, 2, 2)
    rest = client.feedback_page(page.next_cursor, limit=2)
    entries = [*page.feedback, *rest.feedback]
    assert [entry.not_label for entry in entries] == [label, None, label]
    assert [entry.same for entry in entries] == [False, True, False]
    assert [entry.not_label for entry in client.feedback_page(corrections=True).feedback] == [label, label]
    client.wait(client.compute_report("feedback"))
    assert client.consistency("feedback").counts.impostor_pairs == 2
    client.feedback(decision_id=decided.decision_id, same=True)
    assert client.match(make_query(bundle, 0)[None]).results[0].label == label, "the last verdict counts"
    with pytest.raises(ServiceError, match="No feedback has the id"):
        client.delete_feedback("0" * 64)


def test_what_cannot_be_corrected_is_refused(client: Client, bundle: ServiceBundle) -> None:
    vector, pair = bundle.get_vector(0), {"a": {"id": "item-0"}, "b": {"id": "item-1"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"vector": vector, "not_label": "no such class"}, "no item has the label"),
        ({"id": "no such item", "not_label": "class-0"}, "no item has the id"),
        ({"unknown": "q0", "not_label": "class-0"}, "No kept query"),
        ({"vector": vector, "id": "item-0", "not_label": "class-0"}, "exactly one"),
        ({"vector": vector, "same": True}, "decision_id"),
        ({"vector": vector, "same": True, "not_label": "class-0"}, "exactly one of same and not_label"),
        ({"a": pair["a"], "same": True}, "both a and b"),
        ({**pair, "not_label": "class-0"}, "exactly one"),
        ({"vector": [0.0] * 16, "not_label": "class-0"}, "zero"),
        ({"vector": [1.0] * 3, "not_label": "class-0"}, "numbers"),
    ]
    for body, words in wrong:
        answer = httpx.post(f"{str(client._http.base_url).rstrip(chr(47))}/v1/feedback", json=body)
        assert answer.status_code in {404, 422}, body
        assert words in answer.json()["detail"]


def test_the_number_of_corrections_is_bounded(client: Client, bundle: ServiceBundle) -> None:
    vectors = [make_query(bundle, 0, seed=seed).tolist() for seed in range(51)]
    for vector in vectors[:50]:
        client.correct("class-0", vector=vector)
    with pytest.raises(ServiceError, match="LIMEN_MAX_CORRECTIONS"):
        client.correct("class-0", vector=vectors[50])
    client.correct("class-0", vector=vectors[0])  # there already
    client.delete_feedback(client.feedback_page(limit=1).feedback[0].id)
    client.correct("class-0", vector=vectors[50])


def test_a_corrected_unknown_is_not_offered_again(bundle: ServiceBundle, tmp_path: Path) -> None:
    rows, _ = make_strangers(1, 1, 4)
    with serve(bundle.path, data=tmp_path, keep_unknowns="unknown") as at, Client(at) as client:
        ask(client, rows)
        ids = [entry.id for entry in client.unknowns().unknowns]
        done = client.enroll_unknowns("new", ids=ids[:2])
        assert {entry.id for entry in done.offered} == set(ids[2:])
        client.correct("new", unknown=ids[2])
        again = client.enroll_unknowns("new", ids=ids[:2])
        assert {entry.id for entry in again.offered} == {ids[3]}
