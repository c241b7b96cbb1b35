"""``joint`` of ``/v1/match``: a batch is decided together, and says that nothing proves it."""

from __future__ import annotations

import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import ServiceBundle


def test_a_joint_answer_is_beyond_the_proof_and_has_no_probability(
    client: Client, bundle: ServiceBundle
) -> None:
    rows = [bundle.gallery.vectors[row] for row in range(0, 40, 5)]
    alone, together = client.match(rows, k=20), client.match(rows, k=20, joint=True)
    assert [result.label for result in together.results] == [result.label for result in alone.results]
    for single, joint in zip(alone.results, together.results, strict=True):
        assert (joint.score, joint.threshold, joint.decision) == (
            single.score,
            single.threshold,
            single.decision,
        )
        assert (joint.probability, joint.beyond_proof) == (None, True)
        assert [candidate.probability for candidate in joint.candidates] == [None]
    assert not any(result.beyond_proof for result in alone.results)


def test_a_class_that_the_others_chose_is_decided_by_its_own_score(
    client: Client, bundle: ServiceBundle
) -> None:
    """Between two classes, among queries of the second: its own score of the class chosen decides."""
    vectors, labels = bundle.gallery.vectors, bundle.gallery.labels
    first, second = vectors[labels == labels[0]], vectors[labels != labels[0]][:5]
    between = first[0] + second[0]
    together = client.match([between, *second], k=50, candidates=3, joint=True).results[0]
    alone = client.match([between], k=50, candidates=3).results[0]
    assert together.label in {candidate.label for candidate in alone.candidates}
    expected = {candidate.label: candidate.score for candidate in alone.candidates}
    assert together.score == expected[str(together.label)]
    assert (together.decision == "match") == (together.score >= together.threshold)


@pytest.mark.parametrize("query", [{"id": "{id}"}, {"vectors": [[1.0] * 16, [2.0] * 16]}])
def test_items_and_queries_of_several_vectors_are_refused(
    client: Client, bundle: ServiceBundle, query: dict[str, object]
) -> None:
    given = {"id": str(bundle.gallery.ids[0])} if "id" in query else query
    with pytest.raises(ServiceError) as refused:
        client.match([given], joint=True)
    assert refused.value.problem.status == 422
    assert "with joint a query is one vector or input" in str(refused.value)
