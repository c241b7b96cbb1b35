"""``/v1/match`` with ``explain``: the same decision, and what its score is made of."""

from __future__ import annotations

import httpx
import pytest

from limen.client import Client
from tests.service.bundles import ServiceBundle


def test_the_decision_is_the_same_and_its_score_is_explained(client: Client, bundle: ServiceBundle) -> None:
    queries = [{"id": f"item-{row}"} for row in range(3)]
    plain = client.match(queries, candidates=5)
    explained = client.match(queries, candidates=5, explain=True)
    for answer, expected in zip(explained.results, plain.results, strict=True):
        why = answer.explanation
        assert why is not None
        left_out = {"decision_id", "explanation"}
        assert answer.model_dump(exclude=left_out) == expected.model_dump(exclude=left_out)
        assert expected.explanation is None
        assert why.label == answer.label
        assert why.items == (7 if answer.label == "class-0" else 8)
        assert why.intercept + sum(part.contribution for part in why.parts) == pytest.approx(
            answer.score, abs=1e-5
        )
    raw = client.match(bundle.gallery.vectors[:2], explain=True)
    assert all(answer.explanation is not None for answer in raw.results)


def test_unless_asked_for_the_answer_has_no_such_field(address: str) -> None:
    answer = httpx.post(f"{address}/v1/match", json={"queries": [{"id": "item-1"}]}).json()
    assert "explanation" not in answer["results"][0]


def test_few_queries_at_once_are_explained(address: str) -> None:
    body = {"queries": [{"id": "item-1"}] * 11, "explain": True}
    answer = httpx.post(f"{address}/v1/match", json=body)
    assert answer.status_code == 422
    assert "at most 10 are explained" in answer.json()["detail"]
    assert httpx.get(f"{address}/v1/info").json()["limits"]["max_explained"] == 10
