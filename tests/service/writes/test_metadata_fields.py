"""Metadata fields over HTTP: bounded, forgotten with their last item, and whole numbers of 64 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.build_config import IndexConfig
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from tests.service.bundles import serve

VECTOR = [float(value) for value in np.random.default_rng(0).normal(size=16)]


def make_item(item_id: str, **metadata: Any) -> dict[str, Any]:
    return {"id": item_id, "label": "x", "vector": VECTOR, "metadata": metadata}


def put(client: httpx.Client, *items: dict[str, Any]) -> httpx.Response:
    return client.put("/v1/items", json={"items": items})


def test_fields_are_bounded_and_forgotten(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        answer = put(client, make_item("a", **{f"f{number}": 1 for number in range(60_000)}))
        assert answer.status_code == 422
        assert "60000 fields" in answer.text
        assert put(client, make_item("a", **{"n" * 129: 1})).status_code == 422
        assert put(client, make_item("a", text="x" * 8_193)).status_code == 422
        assert put(client, make_item("a", text="x" * 8_192)).status_code == 200
        for block in range(4):
            fields = {f"f{block}-{number}": number for number in range(60)}
            assert put(client, make_item(f"b{block}", **fields)).status_code == 200
        answer = put(client, make_item("c", **{f"g{number}": 1 for number in range(60)}))
        assert answer.status_code == 422
        assert "256" in answer.text
        assert len(answer.text) < 2_000
        unknown = client.post("/v1/search", json={"queries": [{"vector": VECTOR}], "filter": {"zzz": 1}})
        assert unknown.status_code == 422
        assert "and 234 more" in unknown.json()["detail"]
        assert len(unknown.json()["detail"]) < 400
        client.delete("/v1/items/b0")
        assert put(client, make_item("b1", other=1)).status_code == 200, "replaced"
        answer = put(client, make_item("c", **{f"g{number}": 1 for number in range(60)}))
        assert answer.status_code == 200, "those of b0 and b1 are forgotten"


def test_bounds_are_settings_and_shown(bundle: Any, tmp_path: Path) -> None:
    bounds = {"max_item_fields": 3, "max_gallery_fields": 4, "max_field_name": 9, "max_field_text": 5}
    bounds |= {"max_field_values": 2}
    with serve(bundle.path, data=tmp_path, **bounds) as at, httpx.Client(base_url=at) as client:
        assert bounds.items() <= client.get("/v1/info").json()["limits"].items()
        for fields, says in (
            ({"a": 1, "b": 1, "c": 1, "d": 1}, "may have 3"),
            ({"a": 1, "b": 1, "c": 1}, "may have 4"),
            ({"n" * 10: 1}, "9 characters"),
            ({"a": "x" * 6}, "5 characters"),
            ({"a": ["x", "x" * 6]}, "5 characters"),
            ({"a": [1, 2, 3]}, "a list may have 2 values"),
        ):
            assert says in put(client, make_item("a", **fields)).json()["detail"]
        assert put(client, make_item("a", a="x" * 5, **{"n" * 9: 1})).status_code == 200


def test_a_field_may_come_back_as_another_kind(bundle: Any, tmp_path: Path) -> None:
    search: dict[str, Any] = {"queries": [{"vector": VECTOR}], "k": 1}
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        assert put(client, make_item("a", camera="front")).status_code == 422, "a number here"
        client.post("/v1/items/delete", json={"filter": {"camera": {"$exists": True}}})
        assert put(client, make_item("a", camera="front"), make_item("b", camera="back")).status_code == 200
        found = client.post("/v1/search", json=search | {"filter": {"camera": "back"}}).json()
        assert [hit["id"] for hit in found["results"][0]["hits"]] == ["b"]
        assert client.post("/v1/search", json=search | {"filter": {"camera": 1}}).status_code == 422


def test_lists_are_written_found_and_deleted(bundle: Any, tmp_path: Path) -> None:
    search: dict[str, Any] = {"queries": [{"vector": VECTOR}], "k": 9}
    lists: dict[str, dict[str, Any]] = {
        "a": {"tags": ["red", "<b>"], "marks": [1, 0.5]},
        "b": {"tags": [], "marks": [2]},
        "c": {"tags": ["<b>"]},
    }
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        assert put(client, *(make_item(name, **fields) for name, fields in lists.items())).status_code == 200
        for name, fields in lists.items():
            assert client.get(f"/v1/items/{name}").json()["metadata"] == fields
        for condition, expected in (
            ({"tags": {"$contains": "<b>"}}, {"a", "c"}),
            ({"marks": {"$contains": 1.0}}, {"a"}),
            ({"tags": {"$exists": True}, "$not": {"marks": {"$contains": 2}}}, {"a", "c"}),
        ):
            for path in ("search", "match"):
                answer = client.post(f"/v1/{path}", json=search | {"filter": condition})
                assert answer.status_code == 200, answer.text
                hits = answer.json()["results"][0].get("hits", [answer.json()["results"][0]])
                assert {hit["id"] for hit in hits} <= expected
                assert path == "match" or {hit["id"] for hit in hits} == expected
        for condition, says in (
            ({"tags": "red"}, "use $contains or $exists"),
            ({"camera": {"$contains": 1}}, "takes a field of lists, but 'camera' is a number"),
            ({"tags": {"$contains": 1}}, "'tags' is a list of texts"),
        ):
            answer = client.post("/v1/search", json=search | {"filter": condition})
            assert answer.status_code == 422
            assert says in answer.json()["detail"]
        for wrong in (["a", None], [["a"]], ["a", 1], [True], [1]):
            assert put(client, make_item("d", tags=wrong)).status_code == 422, wrong
        previews = client.post("/v1/items/previews", json={"ids": ["a"]}).json()["previews"]
        assert previews[0]["metadata"] == lists["a"]
        gone = client.post("/v1/items/delete", json={"filter": {"tags": {"$contains": "red"}}}).json()
        assert gone["deleted"] == 1
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        hits = client.post("/v1/search", json=search | {"filter": {"tags": {"$exists": True}}}).json()
        assert {hit["id"] for hit in hits["results"][0]["hits"]} == {"b", "c"}, "after a restart"


@pytest.mark.parametrize("missing", [False, True])
def test_what_is_built_with_numbers_beyond_2_to_the_53_is_served(tmp_path: Path, missing: bool) -> None:
    numbers = [2**53 + 1, 2**63 - 1, -(2**63), 5]
    values = np.array([*numbers, None if missing else 7], dtype=object)
    vectors = np.random.default_rng(1).normal(size=(5, 16))
    items = EmbeddingSet.from_arrays(vectors, list("aabbc"), list("01234"), {"serial": values})
    write_bundle(tmp_path / "b", name="b", items=items, model_hash="a" * 64, index_config=IndexConfig())
    search = {"queries": [{"vector": VECTOR}], "filter": {"serial": {"$gte": 2**53 + 1}}}
    for data in (None, tmp_path / "data", tmp_path / "data"):
        with serve(tmp_path / "b", data=data) as at, httpx.Client(base_url=at) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/v1/items/0").json()["metadata"] == {"serial": 2**53 + 1}
            assert client.get("/v1/items/2").json()["metadata"] == {"serial": -(2**63)}
            assert client.get("/v1/items/4").json()["metadata"] == ({} if missing else {"serial": 7})
            hits = client.post("/v1/search", json=search).json()["results"][0]["hits"]
            assert {hit["id"] for hit in hits} == {"0", "1"}
            if data is None:
                continue
            assert put(client, make_item("0", serial=2**53 + 1)).status_code == 200, "as it was read"
            assert put(client, make_item("0", serial=0.5)).status_code == 422
            assert put(client, make_item("0", serial=2**63)).status_code == 422
            answer = client.request("DELETE", "/v1/items/3", params={"rebuild": True}).json()
            while client.get(f"/v1/jobs/{answer['job']}").json()["status"] not in {"done", "failed"}:
                pass
            assert client.get(f"/v1/jobs/{answer['job']}").json()["status"] == "done"
            assert put(client, make_item("3", serial=5)).status_code == 200


def test_infinity_is_refused_when_it_is_built_not_when_it_is_served(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(3, 16))
    items = EmbeddingSet.from_arrays(
        vectors, list("aab"), list("012"), {"price": np.array([1.0, np.inf, np.nan])}
    )
    with pytest.raises(InputError, match="'price' holds infinity in row 1"):
        write_bundle(tmp_path / "b", name="b", items=items, model_hash="a" * 64, index_config=IndexConfig())
    for ids, labels, says in (
        (["a", "b" * 513, "c"], list("aab"), "id of row 1 must have 1 to 512"),
        (["a", "b\0c", "c"], list("aab"), "id of row 1 holds a NUL"),
        (list("abc"), ["a", "a", "b\0c"], "label of row 2 holds a NUL"),
        (list("abc"), ["a", "a", "\ud800"], "label of row 2 holds half a character"),
    ):
        items = EmbeddingSet(
            (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
            np.array(labels),
            np.array(ids),
        )
        with pytest.raises(InputError, match=says):
            write_bundle(
                tmp_path / "b", name="b", items=items, model_hash="a" * 64, index_config=IndexConfig()
            )
