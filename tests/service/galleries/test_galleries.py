"""Several galleries in one service: each with its model, items, points, keys and metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from common.errors import ConfigError
from limen.client import Client
from service.auth.api_keys import create_key
from service.auth.key_limits import KeyLimits
from service.galleries.gallery_settings import derive_settings, read_galleries
from service.settings import load_settings
from tests.service.bad_bodies import check_problem
from tests.service.bundles import ServiceBundle, make_bundle, serve


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    return make_bundle(tmp_path_factory.mktemp("other") / "other", model="others")


def write_galleries(file: Path, **galleries: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(galleries, sort_keys=False), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def service(
    bundle: ServiceBundle, other: ServiceBundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A service of three galleries, two of the same model, and one that cannot be loaded."""
    folder = tmp_path_factory.mktemp("galleries")
    (folder / "empty").mkdir()
    file = write_galleries(
        folder / "galleries.yaml",
        faces={"bundle": str(other.path), "hosts": ["Faces.localhost"]},
        twins={"bundle": str(bundle.path)},
        broken={"bundle": "empty"},
    )
    with serve(bundle.path, data=folder / "data", galleries=file) as at:
        yield at


def test_each_gallery_has_its_own_model_and_items(
    service: str, bundle: ServiceBundle, other: ServiceBundle
) -> None:
    with (
        Client(service, retries=0) as default,
        Client(f"{service}/v1/galleries/faces", retries=0) as faces,
        Client(f"{service}/v1/galleries/twins", retries=0) as twins,
    ):
        clients = {"default": default, "faces": faces, "twins": twins}
        hashes = {name: client.info().model_hash for name, client in clients.items()}
        assert hashes["default"] == hashes["twins"] != hashes["faces"]
        for name, client in clients.items():
            client.upsert([{"id": f"of-{name}", "label": name, "vector": [1.0] * 16}])
        for name, client in clients.items():
            hit = client.search([{"vector": [1.0] * 16}], k=1).results[0].hits[0]
            assert (hit.id, hit.label) == (f"of-{name}", name)
            others = clients.keys() - {name}
            assert all(httpx.get(f"{service}/v1/items/of-{one}").status_code in {200, 404} for one in others)
        decided = default.match([{"id": "item-0"}]).results[0]
        with pytest.raises(Exception, match="not signed"):
            twins.feedback(decision_id=decided.decision_id, same=True)


def test_paths_of_a_gallery_are_those_of_the_service(service: str) -> None:
    body = {"queries": [{"id": "item-0"}]}
    plain = httpx.post(f"{service}/v1/match", json=body).json()
    for address in ("default/match", "default/v1/match", "twins/match", "twins/v1/match"):
        answer = httpx.post(f"{service}/v1/galleries/{address}", json=body)
        assert answer.status_code == 200, address
        same = ("decision", "label", "id", "score")
        assert [answer.json()["results"][0][key] for key in same] == [
            plain["results"][0][key] for key in same
        ]
    assert httpx.get(f"{service}/v1/galleries/faces/readyz").json()["status"] == "ready"
    assert httpx.get(f"{service}/v1/galleries/faces/items/item-1").json()["id"] == "item-1"
    for nowhere in ("nobody/match", "nobody/readyz", "faces/dashboard", "faces/galleries", "faces"):
        answer = httpx.get(f"{service}/v1/galleries/{nowhere}")
        assert check_problem(answer, 404).type == "/problems/not-found", nowhere


def test_a_gallery_that_cannot_be_loaded_leaves_the_others_alone(service: str) -> None:
    refused = check_problem(httpx.get(f"{service}/v1/galleries/broken/info"), 503)
    assert "manifest.json" in refused.detail
    assert httpx.get(f"{service}/readyz").status_code == 200
    listed = {one["name"]: one for one in httpx.get(f"{service}/v1/galleries").json()["galleries"]}
    assert list(listed) == ["default", "faces", "twins", "broken"]
    assert {name: one["status"] for name, one in listed.items()} == {
        "default": "ready", "faces": "ready", "twins": "ready", "broken": "failed",
    }  # fmt: skip
    assert "manifest.json" in listed["broken"]["detail"]


def test_a_host_is_a_whole_gallery_with_its_pages(service: str, other: ServiceBundle) -> None:
    headers = {"Host": "faces.localhost:8000"}
    assert httpx.get(f"{service}/v1/info", headers=headers).json()["model_hash"] == (
        other.points["match"].model_hash
    )
    with httpx.Client(base_url=service) as client:
        assert client.get("/v1/galleries", headers=headers).status_code == 404
        # a gallery's host reaches no other gallery
        assert client.get("/v1/galleries/twins/info", headers=headers).status_code == 404


def test_metrics_are_of_each_gallery(service: str) -> None:
    httpx.post(f"{service}/v1/galleries/faces/match", json={"queries": [{"id": "item-0"}]})
    httpx.get(f"{service}/v1/galleries/invented/match")
    own = httpx.get(f"{service}/v1/galleries/faces/metrics").text
    assert set(re.findall(r'gallery="(.*?)"', own)) == {"faces"}
    assert 'limen_index_rows{gallery="faces",state="live"}' in own
    assert "limen_decisions_total{decision=" in own
    text = httpx.get(f"{service}/metrics").text
    # of all that this process has served, there are no other names than those that were configured
    assert {"default", "faces", "twins"} <= set(re.findall(r'gallery="(.*?)"', text))
    assert "invented" not in text


def test_keys_open_their_gallery_alone(
    start: Any, bundle: ServiceBundle, other: ServiceBundle, tmp_path: Path
) -> None:
    operator = create_key(tmp_path / "keys.json", "operator", "admin")
    tenant = create_key(
        tmp_path / "tenant.json", "tenant", "read", KeyLimits(requests_per_second=0.001, burst=2)
    )
    file = write_galleries(
        tmp_path / "galleries.yaml", tenant={"bundle": str(other.path), "api_keys_file": "tenant.json"}
    )
    at = start(bundle.path, api_keys_file=tmp_path / "keys.json", galleries=file)

    def get(path: str, key: str) -> int:
        return httpx.get(f"{at}{path}", headers={"Authorization": f"Bearer {key}"}).status_code

    assert get("/v1/info", operator) == get("/v1/galleries", operator) == 200
    assert get("/v1/galleries/tenant/info", operator) == 401
    assert get("/v1/info", tenant) == get("/v1/galleries", tenant) == get("/metrics", tenant) == 401
    statuses = [get("/v1/galleries/tenant/info", tenant) for _ in range(3)]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("faces: {bundle: x, keep_unknown: all}", "keep_unknown"),
        ("Faces: {bundle: x}", "cannot name a gallery"),
        ("default: {bundle: x}", "choose another name"),
        ("[a, b]", "must map names"),
        ("a: {bundle: x, hosts: [h]}\nb: {bundle: x, hosts: [H]}", "same hosts"),
        ("a: {bundle: x, database_url: d}\nb: {bundle: x, database_url: d}", "same database_url"),
        ("\n".join(f"g{n}: {{bundle: x}}" for n in range(65)), "at most 64"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: str, match: str) -> None:
    file = tmp_path / "galleries.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=match):
        read_galleries(file, load_settings(bundle="b"))


def test_a_gallery_runs_with_the_service_s_settings_but_its_own(tmp_path: Path) -> None:
    file = write_galleries(
        tmp_path / "galleries.yaml", a={"bundle": "a", "keep_unknowns": "all"}, b={"bundle": "/b"}
    )
    service = load_settings(
        bundle="b", data="data", bundles="many", database_url="postgresql://x/y", unknowns_days=3
    )
    galleries = read_galleries(file, service)
    a, b = (derive_settings(name, galleries[name], service) for name in "ab")
    assert (a.bundle, b.bundle) == (tmp_path / "a", Path("/b"))
    assert (a.data, b.data) == (Path("data/galleries/a"), Path("data/galleries/b"))
    assert (a.keep_unknowns, b.keep_unknowns) == ("all", "off")
    assert (a.unknowns_days, a.gallery) == (3, "a")
    assert a.database_url is a.bundles is a.galleries is None, "never those of another gallery"
