"""``/v1/match`` by the evidence of a class over HTTP: candidates, several vectors, refused points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from index.items.stored_item import StoredItem
from limen.client import Client, ServiceError
from tests.index.conftest import MODEL, make_items, make_small_config, point
from tests.index.evidence import COHORT, make_arrays, make_evidence_point, make_scorer, score_each
from tests.service.bundles import serve

RNG = np.random.default_rng(8)
CENTRES = RNG.normal(size=(25, 16))
CODES = RNG.integers(0, 25, 200)
GALLERY = make_items(CENTRES[CODES] + 0.6 * RNG.normal(size=(200, 16)), [f"c{code}" for code in CODES])
QUERIES = EmbeddingSet.from_arrays(RNG.normal(size=(6, 16)), ["q"] * 6).vectors
EVIDENCE = make_evidence_point("all")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service that decides by the evidence of classes."""
    folder = tmp_path_factory.mktemp("evidence")
    write_bundle(
        folder / "bundle",
        name="evidence",
        items=GALLERY,
        model_hash=MODEL,
        index_config=make_small_config("hnsw"),
        operating_points=[EVIDENCE, point("far", 0.5)],
        active={"match": EVIDENCE.id, "verify": None},
        cohort=COHORT,
        class_arrays=[make_arrays("all")],
    )
    with (
        serve(folder / "bundle", data=folder / "data") as address,
        Client(address, retries=0) as client,
    ):
        yield client


def score(query: np.ndarray) -> dict[str, tuple[float, str, float]]:
    columns = zip(GALLERY.ids.tolist(), GALLERY.labels.tolist(), GALLERY.vectors, strict=True)
    return score_each([StoredItem(*row) for row in columns], query, make_scorer("all"))


def test_the_best_candidates_are_named(evidence: Client) -> None:
    for queries in (QUERIES, [{"vector": row.astype(float).tolist()} for row in QUERIES]):
        for query, result in zip(QUERIES, evidence.match(queries, k=200, candidates=3).results, strict=True):
            scores = score(query)
            best = sorted(scores, key=lambda label: (-scores[label][0], label))[:3]
            shown = [(entry.label, entry.score, entry.id) for entry in result.candidates]
            assert shown == [(label, *scores[label][:2]) for label in best]
            assert (result.label, result.score, result.id) == shown[0]
            assert result.operating_point == EVIDENCE.id
    assert [len(result.candidates) for result in evidence.match(QUERIES).results] == [1] * 6


def test_several_vectors_get_one_decision(evidence: Client) -> None:
    tracks = [{"vectors": QUERIES[:2].tolist()}, {"id": "i3"}, {"vectors": QUERIES[2:].tolist()}]
    first, by_id, last = evidence.match(tracks, k=200).results
    for result, rows in ((first, QUERIES[:2]), (last, QUERIES[2:])):
        each = [score(query) for query in rows]
        means = {label: float(np.mean([of[label][0] for of in each])) for label in each[0]}
        assert result.label == max(means, key=lambda label: means[label])
        assert result.score == pytest.approx(means[result.label], abs=1e-6)
        assert result.beyond_proof
    assert by_id.id != "i3"
    assert not by_id.beyond_proof
    alone = evidence.match([{"id": "i3"}], k=200).results[0]
    assert (alone.label, alone.id) == (by_id.label, by_id.id)
    array = evidence.match(QUERIES.reshape(2, 3, 16), k=200).results
    dicts = evidence.match([{"vectors": rows.tolist()} for rows in (QUERIES[:3], QUERIES[3:])], k=200).results
    assert [result.score for result in array] == [result.score for result in dicts]


@pytest.mark.parametrize(
    ("queries", "options", "path"),
    [
        ([{"vectors": []}], {}, "queries.0"),
        ([{"vectors": [[1.0] * 16], "id": "i1"}], {}, "queries.0"),
        ([{"vectors": [[1.0] * 16, [1.0] * 15]}], {}, "queries.0.vectors.1"),
        ([{"vectors": [[1.0] * 16, [0.0] * 16]}], {}, "queries.0.vectors.1"),
        ([{"vectors": [[1.0] * 16] * 600}, {"vectors": [[1.0] * 16] * 600}], {}, "queries"),
        ([{"id": "i1"}], {"candidates": 0}, "candidates"),
        ([{"id": "i1"}], {"candidates": 100_000}, "candidates"),
    ],
)
def test_what_cannot_be_used_is_named(evidence: Client, queries: Any, options: Any, path: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        evidence.match(queries, **options)
    errors = refusal.value.problem.errors
    assert refusal.value.problem.status == 422
    assert errors
    assert errors[0].path.startswith(path)


def test_a_point_whose_class_model_is_missing_is_refused_when_it_is_sent(evidence: Client) -> None:
    with pytest.raises(ServiceError, match="needs the class model") as refusal:
        evidence.add_operating_point(make_evidence_point("similarity-plda"))
    assert refusal.value.problem.status == 409
    without = make_evidence_point("similarity")
    evidence.add_operating_point(without)
    try:
        evidence.activate_operating_point(without.id)
        assert evidence.match(QUERIES[:1]).results[0].operating_point == without.id
    finally:
        evidence.activate_operating_point(EVIDENCE.id)


def test_writes_change_what_is_known_of_a_class(evidence: Client) -> None:
    before = evidence.match(QUERIES[:1], k=200, candidates=50).results[0]
    evidence.upsert([{"id": "new", "label": "fresh", "vector": QUERIES[0].astype(float).tolist()}])
    found = evidence.match(QUERIES[:1], k=201, candidates=50).results[0]
    assert "fresh" in {entry.label for entry in found.candidates}
    evidence.delete("new")
    after = evidence.match(QUERIES[:1], k=200, candidates=50).results[0]
    assert after.candidates == before.candidates


def test_a_copy_of_an_item_is_said_to_be_one(evidence: Client) -> None:
    copy, other = evidence.match(np.stack([GALLERY.vectors[3], QUERIES[0]])).results
    assert (copy.decision, copy.label, copy.reason) == ("match", GALLERY.labels[3], "copy")
    assert other.reason is None
    assert "reason" not in other.model_dump()
