"""Models loaded side by side and switched, operating points added and activated, without failed requests."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import serve


def test_load_switch_and_roll_back(two_bundles: Any, tmp_path: Path) -> None:
    folder, bundle, _ = two_bundles
    with serve(bundle.path, data=tmp_path, bundles=folder) as at, Client(at, retries=0) as client:
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
    with serve(bundle.path, data=tmp_path, bundles=folder) as at, Client(at) as client:
        assert client.info().model_hash == first
        client.wait(client.load_model("two"))
        client.activate_model("two", allow_missing=True)
        assert client.item("extra").label == "x"
    with serve(bundle.path, data=tmp_path, bundles=folder) as at, Client(at) as client:
        assert client.info().model_hash == second, "the choice outlives the process"


@pytest.mark.parametrize("version", ["../one", "/etc", "..", ".hidden", "a/b", "", "x" * 200, "none"])
def test_only_bundles_of_the_folder(two_bundles: Any, tmp_path: Path, version: str) -> None:
    folder, bundle, _ = two_bundles
    with serve(bundle.path, data=tmp_path, bundles=folder) as at:
        response = httpx.post(f"{at}/v1/models", json={"version": version})
        assert response.status_code in {404, 422}
        assert response.headers["content-type"] == "application/problem+json"


def test_a_damaged_bundle_fails_as_a_job_and_nothing_else(two_bundles: Any, tmp_path: Path) -> None:
    folder, bundle, _ = two_bundles
    shutil.copytree(folder, tmp_path / "bundles")
    file = tmp_path / "bundles" / "two" / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with (
        serve(bundle.path, data=tmp_path / "data", bundles=tmp_path / "bundles") as at,
        Client(at) as client,
    ):
        job = client.wait(client.load_model("two"))
        assert job.status == "failed"
        assert "vectors.npy" in (job.detail or "")
        assert client.search([{"id": "item-0"}]).results


def switch_under_load(two_bundles: Any, data: Path, seconds: float, switches: int, clients: int) -> None:
    """Clients match and write without pause while models are switched; every answer names its model."""
    folder, bundle, _ = two_bundles
    with serve(bundle.path, data=data, bundles=folder, max_queue=1000) as at, Client(at) as admin:
        admin.wait(admin.load_model("two"))
        failures: list[str] = []
        answered: list[int] = [0] * clients
        stop = threading.Event()
        hashes = {model.model_hash for model in admin.models().models}

        def send_requests(number: int) -> None:
            vector = np.random.default_rng(number).normal(size=(1, 16)).astype(np.float32)
            with Client(at, retries=0) as client:
                while not stop.is_set():
                    try:
                        if number % 4 == 0:
                            client.upsert([{"id": f"w-{number}", "label": "w", "vector": vector[0].tolist()}])
                        answer = client.match(vector)
                        if answer.model_hash not in hashes:
                            failures.append(answer.model_hash)
                        answered[number] += 1
                    except Exception as error:
                        failures.append(repr(error))

        threads = [threading.Thread(target=send_requests, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for switch in range(switches):
            time.sleep(seconds / switches)
            admin.activate_model("two" if switch % 2 == 0 else "one", allow_missing=True)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert min(answered) > 0


def test_switch_under_load(two_bundles: Any, tmp_path: Path) -> None:
    switch_under_load(two_bundles, tmp_path, seconds=3, switches=6, clients=4)


@pytest.mark.full
def test_switch_under_load_full(two_bundles: Any, tmp_path: Path) -> None:
    switch_under_load(two_bundles, tmp_path, seconds=60, switches=20, clients=8)


def test_operating_points_are_added_and_switched(two_bundles: Any, tmp_path: Path) -> None:
    _, bundle, other_bundle = two_bundles
    strict = bundle.points["verify"].with_changes(name="strict", threshold=0.999999)
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        pair = [({"id": "item-0"}, {"id": "item-1"})]
        assert client.verify(pair).results[0].operating_point == bundle.points["verify"].id
        with pytest.raises(ServiceError, match="calibrate again"):
            client.add_operating_point(other_bundle.points["verify"])
        assert client.add_operating_point(strict).active_for is None
        answer = client.activate_operating_point(strict.id)
        assert (answer.endpoint, answer.previous) == ("verify", bundle.points["verify"].id)
        decided = client.verify(pair).results[0]
        assert (decided.operating_point, decided.decision) == (strict.id, "no_match")
        with pytest.raises(ServiceError, match="no operating point"):
            client.activate_operating_point("nothing")
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.verify(pair).results[0].operating_point == strict.id, "the choice outlives the process"


def test_a_linked_or_hidden_folder_is_no_bundle(start: Any, bundle: Any, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "linked").symlink_to(bundle.path)
    with Client(start(bundle.path, data=tmp_path / "data", bundles=bundles), retries=0) as client:
        assert [model.version for model in client.models().models] == [bundle.path.name]
        with pytest.raises(ServiceError, match="no bundle 'linked'"):
            client.load_model("linked")
