"""Items over HTTP: written, hits at once, kept, deleted; what cannot be written is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client, ServiceError
from service.auth.api_keys import create_key
from tests.service.bundles import read_stored_feedback, serve


def item(number: int, vector: list[float], **more: Any) -> dict[str, Any]:
    return {"id": f"new-{number}", "label": "new", "vector": vector, **more}


def draw_vector(seed: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(size=16)]


def test_written_items_are_found_at_once_and_after_a_restart(bundle: Any, tmp_path: Path) -> None:
    vectors = [draw_vector(seed) for seed in range(3)]
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        answer = client.upsert(
            [item(number, vector, metadata={"camera": 9}) for number, vector in enumerate(vectors)]
        )
        assert (answer.upserted, answer.new, answer.items) == (3, 3, 323)
        hit = client.search([{"vector": vectors[1]}], k=1).results[0].hits[0]
        assert (hit.id, hit.label, hit.metadata) == ("new-1", "new", {"camera": 9})
        assert client.upsert([item(1, vectors[2])]).new == 0
        assert client.info().items == 323
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.info().items == 323
        ids = [hit.id for hit in client.search([{"vector": vectors[2]}], k=2).results[0].hits]
        assert ids == ["new-1", "new-2"], "the replaced item lies where the other does; ties by id"
        assert client.match([{"vector": vectors[2]}]).results[0].label == "new"


def test_read_page_and_delete(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        ids, cursor = [], None
        while True:
            page = client.items(cursor, limit=100)
            ids += [item.id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert ids == sorted(f"item-{row}" for row in range(320))
        read = client.item("item-5")
        assert read.label == bundle.gallery.labels[5]
        np.testing.assert_array_equal(np.float32(read.vector), bundle.gallery.vectors[5])
        assert client.delete("item-5").deleted == 1
        with pytest.raises(ServiceError, match="item-5"):
            client.item("item-5")
        with pytest.raises(ServiceError, match="item-5"):
            client.delete("item-5")
        assert client.delete_items(ids=["item-6", "nobody"]).deleted == 1
        answer = client.delete_items(filter={"place": "north"})
        assert answer.deleted == 159
        assert answer.items == 159
        assert any("bundle" in sentence for sentence in answer.remains_in)
        hits = client.search([{"vector": bundle.get_vector(5)}], k=1000).results[0].hits
        assert len(hits) == 159
        assert all(int(hit.id.removeprefix("item-")) % 2 == 1 for hit in hits)


def test_read_only_says_to_add_data(client: Client) -> None:
    for ask in (
        lambda: client.upsert([item(0, draw_vector(0))]),
        lambda: client.delete("item-0"),
        lambda: client.delete_items(ids=["item-0"]),
        lambda: client.feedback(a={"id": "item-0"}, b={"id": "item-1"}, same=True),
    ):
        with pytest.raises(ServiceError, match="--data") as refusal:
            ask()
        assert refusal.value.problem.status == 409
        assert refusal.value.problem.type == "/problems/read-only"


def test_items_that_cannot_be_written(bundle: Any, tmp_path: Path) -> None:
    good = item(0, draw_vector(0))
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"items": [good], "model_hash": "0" * 64}, 409, "another model|of model"),
        ({"items": [good, item(1, [1.0])]}, 422, "items.1.vector"),
        ({"items": [good, item(1, [0.0] * 16)]}, 422, "items.1"),
        ({"items": [good | {"id": ""}]}, 422, "items.0.id"),
        ({"items": [good | {"label": 7}]}, 422, "items.0.label"),
        ({"items": [{"id": "x", "label": "y"}]}, 422, "exactly one"),
        ({"items": [good | {"metadata": {"a": {"b": 1}}}]}, 422, "."),
        ({"items": [good, good]}, 422, "new-0"),
        ({"items": []}, 422, "items"),
    ]
    with serve(bundle.path, data=tmp_path, max_items=3) as at:
        for body, status, words in cases:
            response = httpx.put(f"{at}/v1/items", json=body)
            assert response.status_code == status, response.text
            assert any(word in response.json()["detail"] for word in words.split("|")), response.text
        many = httpx.put(f"{at}/v1/items", json={"items": [item(n, draw_vector(n)) for n in range(4)]})
        assert "at most 3" in many.json()["detail"]
        assert httpx.get(f"{at}/v1/info").json()["items"] == 320


def test_erasure_reaches_what_the_service_keeps_and_names_the_rest(bundle: Any, tmp_path: Path) -> None:
    marked = {
        "id": "marked-id",
        "label": "marked-label",
        "vector": draw_vector(1),
        "metadata": {"camera": 7},
    }
    other_model = tmp_path / "models" / "0123456789abcdef"
    other_model.mkdir(parents=True)
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        client.upsert([marked])
        decided = client.match([{"id": "marked-id"}]).results[0]
        client.feedback(decision_id=decided.decision_id, same=True)
        client.feedback(a={"id": "item-1"}, b={"id": "marked-id"}, same=False)
        client.feedback(a={"id": "item-1"}, b={"id": "item-2"}, same=True)
        answer = client.delete_items(filter={"camera": 7}, rebuild=True)
        assert (answer.deleted, answer.items) == (1, 320)
        assert "marked-id" not in str(read_stored_feedback(tmp_path))
        assert client.feedback(decision_id=decided.decision_id, same=True).total == 2
        assert "marked-id" not in str(read_stored_feedback(tmp_path)), "not through a decision id"
        for words in ("bundle", "backups", "audit log", other_model.name, f"job {answer.job}"):
            assert any(words in sentence for sentence in answer.remains_in), words
        assert answer.job is not None
        assert client.wait(client.job(answer.job)).status == "done"
        plain = client.delete("item-3")
        assert plain.job is None
        assert any("rebuild" in sentence for sentence in plain.remains_in)
    raw = np.float32(marked["vector"]) / np.linalg.norm(marked["vector"])
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "audit.jsonl":
            content = file.read_bytes()
            assert b"marked-id" not in content, file
            assert b"marked-label" not in content, file
            assert raw.astype("<f4").tobytes()[:16] not in content, file


def test_writes_need_the_scope_and_leave_a_trace(bundle: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    reader, writer = create_key(file, "anna", "read"), create_key(file, "bob", "write")
    with serve(bundle.path, data=tmp_path / "data", api_keys_file=file) as at:
        with Client(at, key=reader, retries=0) as client, pytest.raises(ServiceError, match="scope read"):
            client.upsert([item(0, draw_vector(0))])
        with Client(at, key=writer, retries=0) as client:
            client.upsert([item(0, draw_vector(0))])
            client.delete("new-0")
    lines = [json.loads(line) for line in (tmp_path / "data" / "audit.jsonl").read_text().splitlines()]
    assert [(line["actor"], line["action"], line["ids"]) for line in lines] == [
        ("bob", "items.upsert", ["new-0"]),
        ("bob", "items.delete", ["new-0"]),
    ]
    assert writer not in (tmp_path / "data" / "audit.jsonl").read_text()


PATHLIKE = [
    "a/../item-0",
    "../imgs/1.png",
    "..",
    ".",
    "a//b",
    "/",
    "a/",
    "a\nb",
    "a\n",
    "\n",
    "ä ö%41?#&",
    "%2F",
]


def test_every_id_that_is_written_can_be_read_and_deleted(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        items = [
            item(0, draw_vector(number), metadata={"n": number}) | {"id": item_id}
            for number, item_id in enumerate(PATHLIKE)
        ]
        client.upsert(items)
        for number, item_id in enumerate(PATHLIKE):
            read = client.item(item_id)
            assert (read.id, read.metadata) == (item_id, {"n": number})
        for left, item_id in enumerate(PATHLIKE, 1):
            assert client.delete(item_id).items == 320 + len(PATHLIKE) - left, item_id
            with pytest.raises(ServiceError, match="No item has the id"):
                client.item(item_id)
        assert client.item("item-0").id == "item-0", "no id names another item"


def test_an_id_that_no_database_stores_is_refused(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        for field in ("id", "label"):
            with pytest.raises(ServiceError, match=rf"items\.0\.{field}: send text without"):
                client.upsert([item(0, draw_vector(0)) | {field: "a\0b"}])
        with pytest.raises(ServiceError, match="NUL"):
            client.item("a\0b")


def test_labels_of_another_spelling_are_named_and_folded(bundle: Any, tmp_path: Path) -> None:
    known = str(bundle.gallery.labels[5])
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        vector = draw_vector(9)

        def write(name: str, label: str, **options: Any) -> list[str]:
            return client.upsert([{"id": name, "label": label, "vector": vector}], **options).notes

        assert write("a", known) == []
        [note] = write("b", f"{known.upper()}  ")
        assert f"another class than {known!r}" in note
        assert "fold_labels" in note
        assert write("c", "Caf\xe9") == []
        [note] = write("d", "cafe\u0301")
        assert r"'cafe\u0301' is another class than 'Caf\xe9'" in note
        client.delete("d")
        client.delete("b")
        assert write("c", "Caf\xe9") == [], "labels whose items are gone are no longer named"
        assert write("e", "CAFE\u0301", fold_labels=True) == []
        assert client.item("e").label == "Caf\xe9"
        [note] = write("f", "unknown")
        assert "Is 'unknown' an identity?" in note


@pytest.mark.parametrize("blank", [" ", "\t\n", "\u00a0", "\u200b", "\ufeff\u2003"])
def test_a_label_that_cannot_be_seen_is_refused(bundle: Any, tmp_path: Path, blank: str) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        with pytest.raises(ServiceError, match="send text that can be seen"):
            client.upsert([item(1, draw_vector(1)) | {"label": blank}])
        assert client.items(label=blank).items == []
