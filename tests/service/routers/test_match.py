"""``/v1/match`` against brute force: decisions, margins, class means, and refusals without a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.operating_point import GallerySize, Target
from decision.answer_probability import AnswerModel
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from limen.client import Client, ServiceError
from tests.service.bad_bodies import OCTETS
from tests.service.brute_force import compute_similarities, select_best
from tests.service.bundles import make_clusters


def test_match_is_decided_by_the_fpir_point(client: Client, bundle: Any) -> None:
    threshold = np.float32(bundle.points["match"].threshold)
    rng = np.random.default_rng(9)
    queries = np.concatenate([bundle.gallery.vectors[:20], rng.normal(size=(20, 16)).astype(np.float32)])
    unit = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    labels = dict(zip(bundle.gallery.ids, bundle.gallery.labels, strict=True))
    decisions = set()
    for row, result in enumerate(client.match(queries).results):
        ranked = select_best(compute_similarities(bundle, unit[row]), len(bundle.gallery))
        top, score = ranked[0]
        others = [value for item_id, value in ranked if labels[item_id] != labels[top]]
        assert (result.id, result.label, result.score) == (top, labels[top], score)
        assert result.decision == ("match" if np.float32(score) >= threshold else "unknown")
        assert result.margin == pytest.approx(score - others[0], abs=1e-6)
        assert result.operating_point == bundle.points["match"].id
        assert not result.beyond_proof
        decisions.add(result.decision)
    assert decisions == {"match", "unknown"}


def test_without_an_operating_point_decisions_are_refused_and_search_works(
    start: Any, bundle_without_points: Any
) -> None:
    with Client(start(bundle_without_points.path), retries=0) as client:
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


def test_a_class_mean_is_not_decided_by_a_point_for_the_nearest(client: Client, bundle: Any) -> None:
    queries = bundle.gallery.vectors[:2]
    assert client.match(queries, aggregate="nearest").results[0].decision
    for given in (queries, [{"id": "item-0"}]):
        with pytest.raises(ServiceError, match="calibrated for the aggregate 'nearest'") as refusal:
            client.match(given, aggregate="mean_of_class")
        assert refusal.value.problem.type == "/problems/no-operating-point"


def test_a_point_for_class_means_decides_by_them(start: Any, bundle: Any, tmp_path: Path) -> None:
    """Added, activated, then queried: each answer is that of a loop over all items of each class."""
    size = GallerySize(items=len(bundle.gallery), classes=40)
    target = Target(kind="fpir", value=0.2, aggregate="mean_of_class", gallery=size)
    hashed = bundle.points["match"].model_hash
    sources = CalibrationSources(make_clusters(1, 50, 8, "fit-"))
    point = calibrate_threshold(sources, target, name="means", model_hash=hashed).point
    with Client(start(bundle.path, data=tmp_path / "data"), retries=0) as client:
        assert client.match(bundle.gallery.vectors[:1], aggregate="nearest").results[0].decision
        client.add_operating_point(point)
        client.activate_operating_point(point.id)
        listed = client.info().operating_points.match
        assert listed is not None
        assert listed.target.aggregate == "mean_of_class"
        ids = [f"item-{row}" for row in range(0, 320, 40)]
        answers = client.match([{"id": item_id} for item_id in ids], k=1000).results
        for item_id, answer in zip(ids, answers, strict=True):
            row = bundle.gallery.ids.tolist().index(item_id)
            similarities = compute_similarities(bundle, bundle.gallery.vectors[row])
            similarities.pop(item_id)
            means = {
                str(label): float(
                    np.float32(
                        np.mean(
                            [
                                similarities[member]
                                for member in bundle.gallery.ids[bundle.gallery.labels == label]
                                if member in similarities
                            ]
                        )
                    )
                )
                for label in bundle.gallery.classes
            }
            assert answer.label == max(means, key=lambda label: means[label])
            assert answer.score == pytest.approx(means[answer.label], abs=1e-6)
            assert answer.decision == ("match" if answer.score >= np.float32(point.threshold) else "unknown")
            assert answer.operating_point == point.id
        raw = client.match(bundle.gallery.vectors[:3], aggregate="mean_of_class").results
        assert {result.operating_point for result in raw} == {point.id}
        client.feedback(decision_id=raw[0].decision_id, same=True)
        with pytest.raises(ServiceError, match="calibrated for the aggregate 'mean_of_class'"):
            client.match(bundle.gallery.vectors[:1], aggregate="nearest")


def test_how_sure_an_answer_is_depends_on_the_share_of_unknown_queries(client: Client, bundle: Any) -> None:
    queries = [{"vector": bundle.get_vector(row)} for row in range(0, 320, 40)]
    by_share = {
        share: [result.probability for result in client.match(queries, unknown_share=share).results]
        for share in (0.1, 0.5, 0.9)
    }
    usual = client.match(queries).results
    assert [result.probability for result in usual] == by_share[0.5]
    model = AnswerModel.read(bundle.points["match"].answer)
    for row, result in enumerate(usual):
        outcomes = model.compute([result.score], [result.score - result.margin], 40, 0.1)
        right = outcomes.first if result.decision == "match" else outcomes.unknown
        assert by_share[0.1][row] == pytest.approx(float(right[0]), abs=1e-6)
    matches = [row for row, result in enumerate(usual) if result.decision == "match"]
    assert matches
    for row in matches:
        assert by_share[0.1][row] >= by_share[0.5][row] >= by_share[0.9][row]


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_of_all_or_none_is_refused(client: Client, share: float) -> None:
    with pytest.raises(ServiceError, match="unknown_share") as refusal:
        client.match([{"id": "item-0"}], unknown_share=share)
    assert refusal.value.problem.status == 422
    assert refusal.value.problem.errors
    assert refusal.value.problem.errors[0].path == "unknown_share"


def test_a_group_that_no_point_is_for_is_refused(client: Client) -> None:
    with pytest.raises(ServiceError, match="No operating point is for the group 'west'") as refusal:
        client.match([{"id": "item-0"}], group="west")
    assert refusal.value.problem.status == 409


@pytest.mark.parametrize("length", [1e-37, 1e-20, 1.0, 1e18])
def test_raw_rows_of_any_length_are_decided_as_their_directions(
    start: Any, bundle: Any, tmp_path: Path, length: float
) -> None:
    """Their squares are zero or infinite in 32 bits."""
    address = start(bundle.path, data=tmp_path)
    row = np.array(bundle.get_vector(3), dtype=np.float32)
    raw = (length * row.astype(np.float64)).astype("<f4").tobytes()
    sent = ({"content": raw, "headers": OCTETS}, {"json": {"queries": [{"vector": row.tolist()}]}})
    decided, expected = (httpx.post(f"{address}/v1/match", **given).json()["results"][0] for given in sent)
    assert decided["id"] == expected["id"] == "item-3"
    assert decided["score"] == pytest.approx(expected["score"], abs=1e-6)
