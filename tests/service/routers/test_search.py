"""``/v1/search`` against brute force, as JSON and as binary answers."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.http.binary_search import read_search_arrays
from common.errors import InputError
from limen.client import Client, ServiceError
from tests.service.brute_force import compute_similarities, select_best


def test_search_agrees_with_a_loop(client: Client, bundle: Any) -> None:
    queries = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    unit = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    answer = client.search(queries, k=9)
    for row, result in enumerate(answer.results):
        expected = select_best(compute_similarities(bundle, unit[row]), 9)
        assert [(hit.id, hit.similarity) for hit in result.hits] == expected
        assert all(hit.score == hit.similarity for hit in result.hits)
    assert answer.model_hash == client.info().model_hash


def test_raw_rows_and_json_give_the_same_answer(client: Client, bundle: Any) -> None:
    rows = bundle.gallery.vectors[:5]
    as_json = [{"vector": bundle.get_vector(row)} for row in range(5)]
    options: Any = {"k": 4, "filter": {"place": "north"}, "min_score": 0.2, "include": ["metadata", "vector"]}
    assert client.search(rows, **options).results == client.search(as_json, **options).results
    raw, listed = client.match(rows).results, client.match(as_json).results
    assert [result.model_copy(update={"decision_id": ""}) for result in raw] == [
        result.model_copy(update={"decision_id": ""}) for result in listed
    ]


def test_a_query_by_id_leaves_itself_out(client: Client, bundle: Any) -> None:
    by_id = client.search([{"id": "item-3"}], k=5).results[0].hits
    by_vector = client.search([{"vector": bundle.get_vector(3)}], k=6).results[0].hits
    assert by_vector[0].id == "item-3"
    assert by_vector[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert [hit.id for hit in by_id] == [hit.id for hit in by_vector[1:]]
    assert client.match([{"id": "item-3"}]).results[0].id == by_id[0].id


def test_include_and_filter(client: Client, bundle: Any) -> None:
    result = client.search([{"id": "item-0"}], k=20, filter={"camera": {"$in": [0, 1]}}, include=["vector"])
    hits = result.results[0].hits
    assert len(hits) == 20
    for hit in hits:
        assert hit.metadata is None
        row = int(hit.id.removeprefix("item-"))
        assert row % 3 in {0, 1}
        np.testing.assert_array_equal(np.float32(hit.vector), bundle.gallery.vectors[row])
    shown = client.search([{"id": "item-0"}], k=1).results[0].hits[0]
    assert shown.metadata is not None
    assert shown.metadata["place"] in {"north", "south"}


def test_binary_answers_hold_what_json_answers_hold(client: Client, bundle: Any) -> None:
    queries = bundle.gallery.vectors[:5]
    for options in ({}, {"min_score": 0.9}, {"min_score": 2.0}, {"filter": {"camera": 1}}):
        plain = client.search(queries, 7, **options)
        arrays = client.search_arrays(queries, 7, **options)
        assert arrays.model_hash == plain.model_hash
        assert arrays.took_ms > 0
        assert len(arrays.ends) == 5
        for number, result in enumerate(plain.results):
            positions = arrays.of(number)
            assert arrays.ids[positions] == [hit.id for hit in result.hits]
            assert arrays.labels[positions] == [hit.label for hit in result.hits]
            assert arrays.similarities[positions].tolist() == [hit.similarity for hit in result.hits]
            assert arrays.scores[positions].tolist() == [hit.score for hit in result.hits]
    by_id = client.search_arrays([{"id": "item-0"}], 3)
    assert "item-0" not in by_id.ids


def test_binary_answers_are_refused_in_words(client: Client, address: str) -> None:
    body = {"queries": [{"id": "item-0"}], "include": ["vector"]}
    accept = {"accept": "application/octet-stream"}
    response = httpx.post(f"{address}/v1/search", json=body, headers=accept)
    assert response.status_code == 422
    assert "no vectors" in response.json()["detail"]
    content = httpx.post(f"{address}/v1/search", json={"queries": [{"id": "item-0"}]}, headers=accept).content
    for broken in (b"", content[:40], content[:70], content[:-1], content + b"x"):
        with pytest.raises(InputError, match="binary search result"):
            read_search_arrays(broken)


@pytest.mark.parametrize("rank_by", ["similarity", "score"])
def test_search_by_label_agrees_with_a_loop(client: Client, bundle: Any, rank_by: Any) -> None:
    labels = dict(zip(bundle.gallery.ids.tolist(), bundle.gallery.labels.tolist(), strict=True))
    queries = bundle.gallery.vectors[:3]
    options: Any = {"group_by": "label", "group_size": 2, "rank_by": rank_by}
    answer, arrays = client.search(queries, k=4, **options), client.search_arrays(queries, k=4, **options)
    for row, result in enumerate(answer.results):
        ranked = select_best(compute_similarities(bundle, queries[row]), len(labels))
        nearest = list(dict.fromkeys(labels[item_id] for item_id, _ in ranked))[:4]
        expected = [
            entry for label in nearest for entry in [one for one in ranked if labels[one[0]] == label][:2]
        ]
        assert [(hit.id, hit.similarity) for hit in result.hits] == expected
        assert [hit.label for hit in result.hits] == [label for label in nearest for _ in range(2)]
        assert arrays.ids[arrays.of(row)] == [item_id for item_id, _ in expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 2}, "add group_by"),
        ({"group_by": "label", "group_size": 0}, "send 1 or more"),
        ({"group_by": "camera"}, "'label'"),
        ({"group_by": "label", "group_size": 1000}, "at most 1000"),
    ],
)
def test_groups_that_cannot_be_are_refused(client: Client, options: Any, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        client.search([{"id": "item-0"}], k=10, **options)
