"""Search, match and verify over HTTP against loops that anyone can check by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.http.binary_search import read_search_arrays
from api_schemas.operating_point import GallerySize, Target
from common.errors import InputError
from embeddings.similarity import pair_similarities
from evaluation.calibration.calibrate import calibrate
from limen.client import AsyncClient, Client, ServiceError
from tests.service.bundles import clusters


def similarities(made: Any, vector: np.ndarray) -> dict[str, float]:
    """Similarity of a unit vector to every item, one pair at a time."""
    return {
        item_id: float(pair_similarities(vector[None], row[None])[0])
        for item_id, row in zip(made.gallery.ids, made.gallery.vectors, strict=True)
    }


def best(found: dict[str, float], k: int) -> list[tuple[str, float]]:
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def test_search_agrees_with_a_loop(client: Client, made: Any) -> None:
    queries = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    unit = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    answer = client.search(queries, k=9)
    for row, result in enumerate(answer.results):
        expected = best(similarities(made, unit[row]), 9)
        assert [(hit.id, hit.similarity) for hit in result.hits] == expected
        assert all(hit.score == hit.similarity for hit in result.hits)
    assert answer.model_hash == client.info().model_hash


def test_raw_rows_and_json_give_the_same_answer(client: Client, made: Any) -> None:
    rows = made.gallery.vectors[:5]
    as_json = [{"vector": made.vector(row)} for row in range(5)]
    options: Any = {"k": 4, "filter": {"place": "north"}, "min_score": 0.2, "include": ["metadata", "vector"]}
    assert client.search(rows, **options).results == client.search(as_json, **options).results
    raw, listed = client.match(rows).results, client.match(as_json).results
    assert [one.model_copy(update={"decision_id": ""}) for one in raw] == [
        one.model_copy(update={"decision_id": ""}) for one in listed
    ]


def test_a_query_by_id_leaves_itself_out(client: Client, made: Any) -> None:
    by_id = client.search([{"id": "item-3"}], k=5).results[0].hits
    by_vector = client.search([{"vector": made.vector(3)}], k=6).results[0].hits
    assert by_vector[0].id == "item-3"
    assert by_vector[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert [hit.id for hit in by_id] == [hit.id for hit in by_vector[1:]]
    assert client.match([{"id": "item-3"}]).results[0].id == by_id[0].id


def test_include_and_filter(client: Client, made: Any) -> None:
    result = client.search([{"id": "item-0"}], k=20, filter={"camera": {"$in": [0, 1]}}, include=["vector"])
    hits = result.results[0].hits
    assert len(hits) == 20
    for hit in hits:
        assert hit.metadata is None
        row = int(hit.id.removeprefix("item-"))
        assert row % 3 in {0, 1}
        np.testing.assert_array_equal(np.float32(hit.vector), made.gallery.vectors[row])
    shown = client.search([{"id": "item-0"}], k=1).results[0].hits[0]
    assert shown.metadata is not None
    assert shown.metadata["place"] in {"north", "south"}


def test_match_is_decided_by_the_fpir_point(client: Client, made: Any) -> None:
    threshold = np.float32(made.points["match"].threshold)
    rng = np.random.default_rng(9)
    queries = np.concatenate([made.gallery.vectors[:20], rng.normal(size=(20, 16)).astype(np.float32)])
    unit = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    labels = dict(zip(made.gallery.ids, made.gallery.labels, strict=True))
    decisions = set()
    for row, result in enumerate(client.match(queries).results):
        ranked = best(similarities(made, unit[row]), len(made.gallery))
        top, score = ranked[0]
        others = [value for item_id, value in ranked if labels[item_id] != labels[top]]
        assert (result.id, result.label, result.score) == (top, labels[top], score)
        assert result.decision == ("match" if np.float32(score) >= threshold else "unknown")
        assert result.margin == pytest.approx(score - others[0], abs=1e-6)
        assert result.operating_point == made.points["match"].id
        assert not result.beyond_proof
        decisions.add(result.decision)
    assert decisions == {"match", "unknown"}


def test_a_score_exactly_at_the_threshold_matches(client: Client, made: Any) -> None:
    threshold = np.float32(made.points["verify"].threshold)
    results = client.verify(
        [({"id": "item-0"}, {"id": f"item-{row}"}) for row in range(1, 200)]
        + [({"id": "item-0"}, {"vector": made.vector(0)})]
    ).results
    for row, result in enumerate(results[:-1], 1):
        expected = pair_similarities(made.gallery.vectors[:1], made.gallery.vectors[row : row + 1])[0]
        assert np.float32(result.score) == expected
        assert result.decision == ("match" if expected >= threshold else "no_match")
    assert results[-1].decision == "match"
    assert {result.decision for result in results} == {"match", "no_match"}


def test_probability_rises_with_the_score(client: Client) -> None:
    results = client.verify([({"id": "item-0"}, {"id": f"item-{row}"}) for row in range(1, 100)]).results
    ordered = sorted(results, key=lambda one: one.score)
    probabilities = [one.probability for one in ordered]
    assert all(value is not None and 0 <= value <= 1 for value in probabilities)
    assert probabilities == sorted(probabilities)  # type: ignore[type-var]


def test_without_an_operating_point_decisions_are_refused_and_search_works(
    start: Any, made_without_points: Any
) -> None:
    with Client(start(made_without_points.path), retries=0) as client:
        for ask in (
            lambda: client.match([{"id": "item-0"}]),
            lambda: client.verify([({"id": "item-0"}, {"id": "item-1"})]),
        ):
            with pytest.raises(ServiceError, match="12 classes are too few") as refusal:
                ask()
            assert refusal.value.problem.status == 409
            assert refusal.value.problem.type == "/problems/no-operating-point"
        assert len(client.search([{"id": "item-0"}]).results[0].hits) == 10
        assert client.info().operating_points.match is None


def test_info_report_and_points(client: Client, made: Any) -> None:
    info = client.info()
    assert (info.dim, info.items, info.read_only, info.encoder) == (16, 320, True, None)
    assert info.limits.max_queries == 1000
    assert info.limits.max_k == 1000
    assert info.limits.max_body_bytes == 128 << 20
    listed = {one.active_for: one.id for one in client.operating_points().operating_points}
    assert listed == {name: point.id for name, point in made.points.items()}
    assert client.consistency().counts.items == 320
    assert client.ready().self_recall == 1.0


async def _all(address: str, made: Any) -> list[Any]:
    async with AsyncClient(address, retries=0) as client:
        ready, info = await client.ready(), await client.info()
        points, report = await client.operating_points(), await client.consistency()
        found = await client.search(made.gallery.vectors[:2], k=3)
        match = await client.match([{"id": "item-1"}])
        pairs = await client.verify([({"id": "item-1"}, {"id": "item-2"})])
        return [ready, info, points, report, found.results, match.results[0].score, pairs.results[0].score]


def test_the_asynchronous_client_is_the_same(address: str, client: Client, made: Any) -> None:
    import asyncio

    assert asyncio.run(_all(address, made)) == [
        client.ready(),
        client.info(),
        client.operating_points(),
        client.consistency(),
        client.search(made.gallery.vectors[:2], k=3).results,
        client.match([{"id": "item-1"}]).results[0].score,
        client.verify([({"id": "item-1"}, {"id": "item-2"})]).results[0].score,
    ]


def test_every_answer_is_dressed(address: str) -> None:
    for path in ("/livez", "/v1/info", "/dashboard", "/nothing", "/static/limen.css"):
        response = httpx.get(address + path, headers={"X-Request-Id": "given-7"})
        assert response.headers["x-request-id"] == "given-7"
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_metrics_count_what_happened(client: Client, address: str) -> None:
    client.match([{"id": "item-0"}])
    httpx.post(address + "/v1/search", content=b"{")
    text = httpx.get(address + "/metrics").text
    for name in (
        'limen_http_requests_total{code="200",route="/v1/match"}',
        "limen_http_request_duration_seconds_bucket",
        'limen_search_duration_seconds_count{stage="search"}',
        "limen_inflight_requests",
        'limen_rejected_total{reason="invalid"}',
        "limen_decisions_total",
        "limen_top1_score_bucket",
        "limen_margin_top1_top2_bucket",
        'limen_threshold{endpoint="match"}',
        'limen_index_rows{state="live"} 320.0',
        "limen_index_unreachable_rows",
        "limen_self_recall_ratio 1.0",
        "limen_index_load_seconds",
        "limen_resident_memory_bytes",
    ):
        assert name in text, name


def test_binary_answers_hold_what_json_answers_hold(client: Client, made: Any) -> None:
    queries = made.gallery.vectors[:5]
    for options in ({}, {"min_score": 0.9}, {"min_score": 2.0}, {"filter": {"camera": 1}}):
        plain = client.search(queries, 7, **options)
        found = client.search_arrays(queries, 7, **options)
        assert found.model_hash == plain.model_hash
        assert found.took_ms > 0
        assert len(found.ends) == 5
        for number, result in enumerate(plain.results):
            place = found.of(number)
            assert found.ids[place] == [hit.id for hit in result.hits]
            assert found.labels[place] == [hit.label for hit in result.hits]
            assert found.similarities[place].tolist() == [hit.similarity for hit in result.hits]
            assert found.scores[place].tolist() == [hit.score for hit in result.hits]
    by_id = client.search_arrays([{"id": "item-0"}], 3)
    assert "item-0" not in by_id.ids


def test_binary_answers_are_refused_in_words(client: Client, address: str) -> None:
    asked = {"queries": [{"id": "item-0"}], "include": ["vector"]}
    accept = {"accept": "application/octet-stream"}
    response = httpx.post(f"{address}/v1/search", json=asked, headers=accept)
    assert response.status_code == 422
    assert "no vectors" in response.json()["detail"]
    content = httpx.post(f"{address}/v1/search", json={"queries": [{"id": "item-0"}]}, headers=accept).content
    for broken in (b"", content[:40], content[:70], content[:-1], content + b"x"):
        with pytest.raises(InputError, match="binary search result"):
            read_search_arrays(broken)


def test_a_class_mean_is_not_decided_by_a_point_for_the_nearest(client: Client, made: Any) -> None:
    queries = made.gallery.vectors[:2]
    assert client.match(queries, aggregate="nearest").results[0].decision
    for asked in (queries, [{"id": "item-0"}]):
        with pytest.raises(ServiceError, match="calibrated for the aggregate 'nearest'") as refusal:
            client.match(asked, aggregate="mean_of_class")
        assert refusal.value.problem.type == "/problems/no-operating-point"


def test_a_point_for_class_means_decides_by_them(start: Any, made: Any, tmp_path: Path) -> None:
    """Added, activated, asked: each answer is that of a loop over all items of each class."""
    target = Target(kind="fpir", value=0.2, aggregate="mean_of_class")
    hashed = made.points["match"].model_hash
    size = GallerySize(items=len(made.gallery), classes=40)
    point = calibrate(clusters(1, 50, 8, "fit-"), target, name="means", model_hash=hashed, gallery=size).point
    with Client(start(made.path, data=tmp_path / "data"), retries=0) as client:
        assert client.match(made.gallery.vectors[:1], aggregate="nearest").results[0].decision
        client.add_operating_point(point)
        client.activate_operating_point(point.id)
        listed = client.info().operating_points.match
        assert listed is not None
        assert listed.target.aggregate == "mean_of_class"
        ids = [f"item-{row}" for row in range(0, 320, 40)]
        answers = client.match([{"id": one} for one in ids], k=1000).results
        for item_id, answer in zip(ids, answers, strict=True):
            row = made.gallery.ids.tolist().index(item_id)
            found = similarities(made, made.gallery.vectors[row])
            found.pop(item_id)
            means = {
                str(label): float(
                    np.float32(
                        np.mean(
                            [
                                found[one]
                                for one in made.gallery.ids[made.gallery.labels == label]
                                if one in found
                            ]
                        )
                    )
                )
                for label in made.gallery.classes
            }
            assert answer.label == max(means, key=lambda label: means[label])
            assert answer.score == pytest.approx(means[answer.label], abs=1e-6)
            assert answer.decision == ("match" if answer.score >= np.float32(point.threshold) else "unknown")
            assert answer.operating_point == point.id
        raw = client.match(made.gallery.vectors[:3], aggregate="mean_of_class").results
        assert {one.operating_point for one in raw} == {point.id}
        client.feedback(decision_id=raw[0].decision_id, same=True)
        with pytest.raises(ServiceError, match="calibrated for the aggregate 'mean_of_class'"):
            client.match(made.gallery.vectors[:1], aggregate="nearest")
