"""Models side by side, operating points switched, jobs and reports."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from decision.scorers import open_scorer
from evaluation.evaluate import evaluate_embeddings
from limen.client import Client, ServiceError
from tests.service.bundles import Made, make_bundle, make_density_bundle, serving


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made, Made]:
    folder = tmp_path_factory.mktemp("side-by-side")
    return folder, make_bundle(folder / "one"), make_bundle(folder / "two", model="others")


def test_load_switch_and_roll_back(two: Any, tmp_path: Path) -> None:
    folder, one, _ = two
    with serving(one.path, data=tmp_path, bundles=folder) as at, Client(at, retries=0) as client:
        assert {model.version: model.state for model in client.models().models} == {
            "one": "active",
            "two": "available",
        }
        with pytest.raises(ServiceError, match="not loaded"):
            client.activate_model("two")
        assert client.wait(client.load_model("two")).status == "done"
        first = client.info().model_hash
        assert client.activate_model("two").previous == "one"
        second = client.info().model_hash
        assert first != second
        assert client.search([{"id": "item-0"}]).model_hash == second
        client.upsert([{"id": "extra", "label": "x", "vector": [1.0] * 16}])
        with pytest.raises(ServiceError, match="lacks 1 items"):
            client.activate_model("one")
        assert client.activate_model("one", allow_missing=True).missing_items == 1
        assert client.info().model_hash == first
        with pytest.raises(ServiceError, match="extra"):
            client.item("extra")
    with serving(one.path, data=tmp_path, bundles=folder) as at, Client(at) as client:
        assert client.info().model_hash == first
        client.wait(client.load_model("two"))
        client.activate_model("two", allow_missing=True)
        assert client.item("extra").label == "x"
    with serving(one.path, data=tmp_path, bundles=folder) as at, Client(at) as client:
        assert client.info().model_hash == second, "the choice outlives the process"


@pytest.mark.parametrize("version", ["../one", "/etc", "..", ".hidden", "a/b", "", "x" * 200, "none"])
def test_only_bundles_of_the_folder(two: Any, tmp_path: Path, version: str) -> None:
    folder, one, _ = two
    with serving(one.path, data=tmp_path, bundles=folder) as at:
        response = httpx.post(f"{at}/v1/models", json={"version": version})
        assert response.status_code in {404, 422}
        assert response.headers["content-type"] == "application/problem+json"


def test_a_damaged_bundle_fails_as_a_job_and_nothing_else(two: Any, tmp_path: Path) -> None:
    folder, one, _ = two
    shutil.copytree(folder, tmp_path / "bundles")
    file = tmp_path / "bundles" / "two" / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with serving(one.path, data=tmp_path / "data", bundles=tmp_path / "bundles") as at, Client(at) as client:
        job = client.wait(client.load_model("two"))
        assert job.status == "failed"
        assert "vectors.npy" in (job.detail or "")
        assert client.search([{"id": "item-0"}]).results


def switch_under_load(two: Any, data: Path, seconds: float, switches: int, clients: int) -> None:
    """Clients ask and write without pause while models are switched; every answer names its model."""
    folder, one, _ = two
    with serving(one.path, data=data, bundles=folder, max_queue=1000) as at, Client(at) as admin:
        admin.wait(admin.load_model("two"))
        failures: list[str] = []
        answered: list[int] = [0] * clients
        stop = threading.Event()
        hashes = {model.model_hash for model in admin.models().models}

        def ask(number: int) -> None:
            vector = np.random.default_rng(number).normal(size=(1, 16)).astype(np.float32)
            with Client(at, retries=0) as client:
                while not stop.is_set():
                    try:
                        if number % 4 == 0:
                            client.upsert([{"id": f"w-{number}", "label": "w", "vector": vector[0].tolist()}])
                        found = client.match(vector)
                        if found.model_hash not in hashes:
                            failures.append(found.model_hash)
                        answered[number] += 1
                    except Exception as error:
                        failures.append(repr(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for turn in range(switches):
            time.sleep(seconds / switches)
            admin.activate_model("two" if turn % 2 == 0 else "one", allow_missing=True)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert min(answered) > 0


def test_switch_under_load(two: Any, tmp_path: Path) -> None:
    switch_under_load(two, tmp_path, seconds=3, switches=6, clients=4)


@pytest.mark.full
def test_switch_under_load_full(two: Any, tmp_path: Path) -> None:
    switch_under_load(two, tmp_path, seconds=60, switches=20, clients=8)


def test_operating_points_are_added_and_switched(two: Any, tmp_path: Path) -> None:
    _, one, other = two
    strict = one.points["verify"].model_copy(
        update={"id": "op-strict", "name": "strict", "threshold": 0.999999}
    )
    with serving(one.path, data=tmp_path) as at, Client(at, retries=0) as client:
        pair = [({"id": "item-0"}, {"id": "item-1"})]
        assert client.verify(pair).results[0].operating_point == one.points["verify"].id
        with pytest.raises(ServiceError, match="calibrate again"):
            client.add_operating_point(other.points["verify"])
        assert client.add_operating_point(strict).active_for is None
        answer = client.activate_operating_point("op-strict")
        assert (answer.endpoint, answer.previous) == ("verify", one.points["verify"].id)
        decided = client.verify(pair).results[0]
        assert (decided.operating_point, decided.decision) == ("op-strict", "no_match")
        with pytest.raises(ServiceError, match="no operating point"):
            client.activate_operating_point("nothing")
    with serving(one.path, data=tmp_path) as at, Client(at) as client:
        assert client.verify(pair).results[0].operating_point == "op-strict", (
            "the choice outlives the process"
        )


def test_reports_are_in_the_score_of_the_active_point(two: Any, tmp_path: Path) -> None:
    _, one, _ = two
    crowded, cohort = make_density_bundle(tmp_path / "crowded", one)
    score = crowded.points["verify"].score
    with serving(crowded.path, data=tmp_path / "data") as at, Client(at, retries=0) as client:
        client.feedback(a={"id": "item-0"}, b={"id": "item-1"}, same=True)
        decided = client.match([{"id": "item-0"}]).results[0]
        client.feedback(decision_id=decided.decision_id, same=True)
        for source in ("gallery", "feedback"):
            client.wait(client.compute_report(source))  # type: ignore[arg-type]
        report = client.consistency("gallery")
        expected = evaluate_embeddings(
            one.gallery.subset(np.argsort(one.gallery.ids)),
            scorer=open_scorer(score, cohort.vectors),
            model_hash=report.model_hash,
            split="gallery",
        )
        assert report.score == score
        assert report.verification == expected.verification
        assert report.consistency.opis == pytest.approx(expected.consistency.opis, abs=1e-9)
        told = client.consistency("feedback")
        assert told.score == score
        assert told.counts.genuine_pairs == 1, "the pair that the similarity decided is left out"
        holdout, gallery, _ = client.history().entries
        assert (holdout.far, holdout.frr) == (None, None), "the hold-out report is of the similarity"
        assert gallery.far is not None
        client.add_operating_point(one.points["verify"])
        client.activate_operating_point(one.points["verify"].id)
        with pytest.raises(ServiceError, match="with the density score"):
            client.consistency("gallery")


def test_reports_of_gallery_and_feedback(two: Any, tmp_path: Path) -> None:
    _, one, _ = two
    with serving(one.path, data=tmp_path) as at, Client(at, retries=0) as client:
        for source in ("gallery", "feedback"):
            with pytest.raises(ServiceError, match="POST"):
                client.consistency(source)  # type: ignore[arg-type]
        job = client.wait(client.compute_report("gallery"))
        assert job.status == "done", job.detail
        report = client.consistency("gallery")
        assert report.counts.items == 320
        assert report.consistency.opis == pytest.approx(client.consistency().consistency.opis, abs=1e-9)
        for row in range(1, 30):
            same = bool(one.gallery.labels[0] == one.gallery.labels[row])
            client.feedback(a={"id": "item-0"}, b={"id": f"item-{row}"}, same=same)
        client.wait(client.compute_report("feedback"))
        told = client.consistency("feedback")
        assert (told.counts.genuine_pairs, told.counts.impostor_pairs) == (7, 22)
        curve = told.verification.curve
        assert curve is not None
        scores = [
            client.verify([({"id": "item-0"}, {"id": f"item-{row}"})]).results[0].score
            for row in range(1, 30)
        ]
        for threshold, far, frr in zip(curve.threshold, curve.far, curve.frr, strict=True):
            assert far == pytest.approx(sum(score >= threshold for score in scores[7:]) / 22)
            assert frr == pytest.approx(sum(score < threshold for score in scores[:7]) / 7)
        assert [entry.source for entry in client.history().entries] == ["holdout", "gallery", "feedback"]
        with pytest.raises(ServiceError, match="no job"):
            client.job("nothing")
    with serving(one.path, data=tmp_path) as at, Client(at) as client:
        assert client.consistency("gallery") == report
        assert len(client.history().entries) == 3
