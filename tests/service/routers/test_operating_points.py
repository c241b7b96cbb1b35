"""``/v1/operating-points/tradeoff`` and ``/choose``: the rates of other thresholds, and one that is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.report import Report
from limen.client import Client, ServiceError
from service.auth.api_keys import create_key
from tests.service.bundles import ServiceBundle, serve

PATH = "/v1/operating-points/tradeoff"


@pytest.mark.parametrize(
    ("endpoint", "false", "missed"), [("match", "fpir", "fnir"), ("verify", "far", "frr")]
)
def test_the_tradeoff_is_the_reports_with_the_expected_cost(
    client: Client, bundle: ServiceBundle, endpoint: Any, false: str, missed: str
) -> None:
    answer = client.tradeoff(endpoint, unknown_share=0.25, false_match_cost=8)
    stored = next(
        one for one in Report.load(bundle.path / "report.json").tradeoffs if one.endpoint == endpoint
    )
    for name in ("thresholds", "far", "frr", "fpir", "fnir", "fpir_upper", "classes_over", "groups"):
        assert getattr(answer, name) == getattr(stored, name)
    for at in (0, 70, -1):
        expected = 0.25 * 8 * getattr(answer, false)[at] + 0.75 * getattr(answer, missed)[at]
        assert answer.cost is not None
        assert answer.cost[at] == pytest.approx(expected)
    (mark,) = answer.points
    assert (mark.id, mark.active, mark.status) == (bundle.points[endpoint].id, True, "proven")
    assert answer.thresholds[mark.index] == bundle.points[endpoint].threshold == answer.active_threshold


def test_what_is_no_share_or_cost_is_refused(address: str) -> None:
    for query in ("endpoint=search", "unknown_share=0", "unknown_share=1", "false_match_cost=-1"):
        assert httpx.get(f"{address}{PATH}?{query}").status_code == 422, query


def test_a_chosen_threshold_decides_the_next_match(bundle: ServiceBundle, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(bundle.path, data=data) as at, Client(at) as client:
        before = client.tradeoff("match")
        assert before.fpir is not None
        assert before.fnir is not None
        query = {"id": "item-0"}
        first = client.match([query]).results[0]
        assert first.decision == "match"
        strict = before.thresholds[-1]
        assert first.score is not None
        assert first.score < strict
        made = client.choose_threshold("match", strict, name="nobody", activate=True)
        assert (made.activated, made.previous) == (True, bundle.points["match"].id)
        assert made.point.proof is not None
        assert (made.point.proof.status, made.point.active_for) == ("chosen", "match")
        assert made.point.proof.fpir == before.fpir[-1]
        assert made.point.proof.fnir == before.fnir[-1]
        second = client.match([query]).results[0]
        assert (second.decision, second.threshold) == ("unknown", strict)
        assert second.operating_point == made.point.id
        assert second.probability is not None, "what the score says does not depend on the threshold"
        again = client.choose_threshold("match", strict, name="nobody")
        assert again.point.id == made.point.id
        assert not again.activated
        assert [mark.name for mark in client.tradeoff("match").points] == ["match", "nobody"]
    lines = [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["operating-points.choose", "operating-points.activate"]
    assert lines[0]["threshold"] == strict
    with serve(bundle.path, data=data) as at, Client(at) as client:
        assert client.match([query]).results[0].operating_point == made.point.id, "it outlives the service"


def test_between_two_thresholds_it_has_the_worse_of_both(
    start: Any, bundle: ServiceBundle, tmp_path: Path
) -> None:
    with Client(start(bundle.path, data=tmp_path / "data")) as client:
        curve = client.tradeoff("verify")
        assert curve.far is not None
        assert curve.frr is not None
        at = next(
            k for k in range(40, 140) if curve.frr[k + 1] > curve.frr[k] and curve.far[k + 1] < curve.far[k]
        )
        middle = (curve.thresholds[at] + curve.thresholds[at + 1]) / 2
        proof = client.choose_threshold("verify", middle).point.proof
        assert proof is not None
        assert (proof.far, proof.frr) == (curve.far[at], curve.frr[at + 1])
        assert client.choose_threshold("verify", -1e-253).point.threshold == 0
        for outside in (curve.thresholds[0] - 0.01, curve.thresholds[-1] + 0.01, 1.7e308, -1.7e308):
            with pytest.raises(ServiceError, match=r"threshold: must be from"):
                client.choose_threshold("verify", outside)


def test_choosing_takes_an_admin_key_and_a_data_folder(
    start: Any, address: str, bundle: ServiceBundle, tmp_path: Path
) -> None:
    with Client(address) as client, pytest.raises(ServiceError, match="--data"):
        client.choose_threshold("match", 0.7)
    file = tmp_path / "keys.json"
    secret = create_key(file, "writer", "write")
    guarded = start(bundle.path, data=tmp_path / "data", api_keys_file=file)
    with Client(guarded, key=secret) as client:
        assert client.tradeoff("match").thresholds
        with pytest.raises(ServiceError, match="needs admin"):
            client.choose_threshold("match", 0.7)


def test_a_bundle_without_the_rates_says_how_to_get_them(
    start: Any, bundle: ServiceBundle, bundle_without_points: ServiceBundle
) -> None:
    answer = httpx.get(start(bundle_without_points.path) + PATH)
    assert answer.status_code == 404
    assert "limen export" in answer.json()["detail"]


def test_rates_of_another_score_are_not_given_for_the_active_one(
    start: Any, bundle: ServiceBundle, tmp_path: Path
) -> None:
    with Client(start(bundle.path, data=tmp_path / "data")) as client:
        point = bundle.points["match"]
        mean = point.with_changes(target=point.target.model_copy(update={"aggregate": "mean_of_class"}))
        client.add_operating_point(mean)
        assert [mark.id for mark in client.tradeoff("match").points] == [point.id]
        client.activate_operating_point(mean.id)
        with pytest.raises(ServiceError, match="thresholds another score"):
            client.tradeoff("match")
        assert np.isfinite(client.tradeoff("verify").thresholds).all()


@pytest.mark.parametrize("name", ["", " \u200b", "x" * 513])
def test_a_point_that_is_added_has_a_name(bundle: ServiceBundle, tmp_path: Path, name: str) -> None:
    point = bundle.points["verify"].model_dump(mode="json") | {"name": name}
    with serve(bundle.path, data=tmp_path) as at:
        answer = httpx.post(f"{at}/v1/operating-points", json=point)
    assert answer.status_code == 422
    assert "name: send 1 to 512 characters" in answer.json()["detail"]
