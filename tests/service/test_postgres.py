"""LIMEN_DATABASE_URL: what is written over HTTP is kept in PostgreSQL, and found there after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import sqlalchemy as sa

from index.store.item_store import DATABASE_FILE
from limen.client import Client
from tests.index import postgres
from tests.service.bundles import serve
from tests.service.processes import read_refusal, run_service
from tests.service.routers.test_unknowns import ask, make_strangers

VECTOR = [float(value) for value in np.random.default_rng(0).normal(size=16)]


def test_items_feedback_and_choices_survive_a_kill(bundle: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 16))
    new = [
        {"id": f"new-{n}", "label": "new", "vector": row, "metadata": {"n": n}} for n, row in enumerate(rows)
    ]
    arguments = (str(bundle.path), "--data", str(tmp_path))
    lower = bundle.points["verify"].with_changes(threshold=-1.0)
    with postgres.running() as database:
        with (
            run_service(*arguments, LIMEN_DATABASE_URL=database) as (process, address),
            Client(address) as client,
        ):
            assert client.upsert(new).new == 3
            decided = client.match(rows[:1]).results[0]
            assert decided.id == "new-0"
            assert client.delete_items(ids=["item-0", "new-2"]).deleted == 2
            client.feedback(decision_id=decided.decision_id, same=True)
            client.add_operating_point(lower)
            client.activate_operating_point(lower.id)
            process.kill()
        assert not list(tmp_path.rglob(f"{DATABASE_FILE}*")), "nothing is kept in the folder that must last"
        with run_service(*arguments, LIMEN_DATABASE_URL=database) as (_, address), Client(address) as client:
            assert client.info().items == 321
            assert client.item("new-1").metadata == {"n": 1}
            assert client.search(rows, 1).results[0].hits[0].id == "new-0"
            assert (
                client.verify([({"id": "item-1"}, {"id": "item-300"})]).results[0].operating_point == lower.id
            )
            job = client.delete("new-1", rebuild=True).job
            assert job is not None
            assert client.wait(client.job(job)).status == "done"
            assert client.search(rows[1:2], 1, filter={"label": "new"}).results[0].hits[0].id == "new-0"
            client.wait(client.compute_report("feedback"))
            assert client.history().entries


def test_ids_that_no_database_keeps_are_of_no_item(bundle: Any, tmp_path: Path) -> None:
    with (
        postgres.running() as database,
        serve(bundle.path, data=tmp_path, database_url=database) as at,
        httpx.Client(base_url=at) as client,
    ):
        for method in ("GET", "DELETE"):
            for name in ("%00", "item-0%00", "%00item-0", "item-0%00x", "%ed%a0%80"):
                answer = client.request(method, f"/v1/items/{name}")
                assert answer.status_code in {404, 422}, (method, name, answer.text)
        first, second = (
            client.get("/v1/items", params={"cursor": cursor, "limit": 3}).json()["items"]
            for cursor in ("item-100", "item-100\0\uffff")
        )
        assert (
            [item["id"] for item in first]
            == [item["id"] for item in second]
            == ["item-101", "item-102", "item-103"]
        )
        assert (
            client.get("/v1/items", params={"cursor": "\0", "limit": 1}).json()["items"][0]["id"] == "item-0"
        )
        ids = ["item-0\0", "\0", "item-9"]
        assert client.post("/v1/items/delete", json={"ids": ids}).status_code in {200, 422}
        pair = {"a": {"vector": VECTOR}, "b": {"vector": VECTOR}, "same": True}
        assert client.post("/v1/feedback", json=pair).status_code == 200
        missing = client.post("/v1/search", json={"queries": [{"id": "item-0\0"}]})
        assert missing.status_code == 422
        new = {"id": "a\0", "label": "x", "vector": VECTOR}
        for wrong in (new, new | {"id": "a", "label": "x\0"}, new | {"id": "a", "metadata": {"f\0": 1}}):
            assert client.put("/v1/items", json={"items": [wrong]}).status_code == 422
        kept = new | {"id": "a", "metadata": {"f": "x\0y"}}
        assert client.put("/v1/items", json={"items": [kept]}).status_code == 200
        assert client.get("/v1/items/a").json()["metadata"] == {"f": "x\0y"}


def test_a_server_that_goes_away_is_said_so_until_it_is_back(bundle: Any, tmp_path: Path) -> None:
    new = {"items": [{"id": "a", "label": "x", "vector": VECTOR}]}
    with (
        postgres.running_server() as server,
        serve(bundle.path, data=tmp_path, database_url=server.address) as at,
        httpx.Client(base_url=at) as client,
    ):
        assert client.put("/v1/items", json=new).status_code == 200
        server.stop()
        for _ in range(2):
            for answer, slug in (
                (client.get("/v1/items/a"), "store-unavailable"),
                (client.get("/v1/items"), "store-unavailable"),
                (client.get("/readyz"), "store-unavailable"),
                (client.get("/v1/reports/consistency/history"), "store-unavailable"),
                (client.put("/v1/items", json=new), "write-failed store-unavailable"),
                (client.delete("/v1/items/a"), "write-failed store-unavailable"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"].removeprefix("/problems/") in slug.split()
                assert "retry-after" in answer.headers
        assert client.get("/livez").status_code == 200
        assert client.post("/v1/search", json={"queries": [{"vector": VECTOR}]}).status_code == 200, (
            "from memory"
        )
        assert client.get("/metrics").status_code == 200
        server.start()
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/items/a").json()["label"] == "x"
        assert client.delete("/v1/items/a").json()["deleted"] == 1


def test_a_write_behind_another_session_is_withdrawn(bundle: Any, tmp_path: Path) -> None:
    new = {"items": [{"id": "a", "label": "x", "vector": VECTOR}]}
    with (
        postgres.running() as database,
        serve(bundle.path, data=tmp_path, database_url=database, deadline=0.5) as at,
        httpx.Client(base_url=at) as client,
    ):
        engine = sa.create_engine(database)
        schema = f"limen_{client.get('/v1/info').json()['model_hash'][:16]}"
        with engine.connect() as other:
            other.execute(sa.text(f'LOCK TABLE "{schema}".items IN SHARE MODE'))
            answer = client.put("/v1/items", json=new)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/deadline-exceeded")
            assert client.get("/v1/items/item-1").status_code == 200
            assert client.delete("/v1/items/item-1").status_code == 503
        engine.dispose()
        new["items"][0]["id"] = "b"
        for _ in range(100):
            if client.put("/v1/items", json=new).status_code == 200:
                break
        assert client.get("/v1/items/a").status_code == 404
        assert client.get("/v1/items/item-1").status_code == 200
        assert client.get("/v1/info").json()["items"] == 321


def test_an_address_that_cannot_be_reached_is_said_so_without_its_password(
    bundle: Any, tmp_path: Path
) -> None:
    for address, says in (
        ("postgresql+psycopg://me:hush@127.0.0.1:1/db", "onnection refused"),
        ("postgresql+psycopg://me@127.0.0.1:1/db?password=hush", "onnection refused"),
        ("postgresql+asyncpg9://me:hush@127.0.0.1/db", "cannot be used"),
        ("mysql://me:hush@127.0.0.1/db", "cannot be used"),
        ("postgresql+psycopg://me:hu@sh/hush@127.0.0.1:1/db", "%40"),
        ("postgresql+psycopg://me:hush@127.0.0.1:port/db", "cannot be used"),
    ):
        line = read_refusal(
            str(bundle.path), "--data", str(tmp_path), "--port", "0", LIMEN_DATABASE_URL=address
        )
        assert says in line
        assert "hush" not in line
        assert "version" not in line


def test_unknowns_and_corrections_are_kept_on_the_server(bundle: Any, tmp_path: Path) -> None:
    rows, names = make_strangers(31, 2, 4)
    settings = {"data": tmp_path, "keep_unknowns": "all", "unknowns_max": 9}
    with postgres.running() as database:
        with serve(bundle.path, database_url=database, **settings) as at, Client(at) as client:
            for row, name in zip(rows, names, strict=True):
                ask(client, row[None], truth=name)
            known = bundle.gallery.vectors[:1]
            label = client.match(known).results[0].label
            corrected = client.correct(label, vector=known[0].tolist())
            assert client.wait(client.group_unknowns()).status == "done"
            first, second = client.unknown_groups().groups
            assert {first.size, second.size} == {4}
            split = client.arrange_unknowns("split", ids=[first.members[0].id])
            assert client.undo_unknowns(split.change).restored == 4
            done = client.enroll_unknowns("new", ids=[member.id for member in first.members[:2]])
            assert len(done.offered) == 2
            client.arrange_unknowns("drop", group=second.id)
            assert client.search_unknowns([{"vector": rows[0].tolist()}], k=1).results[0].hits[0].same
            assert len(client.unknowns(filter={"truth": names[0]}).unknowns) == 4
            assert len(client.review().reviews) == 3
            client.match(known)
            client.match(known)
            assert len(client.unknowns().unknowns) == 9, "the oldest went"
        with serve(bundle.path, database_url=database, **settings) as at, Client(at) as client:
            assert client.match(known, keep=False).results[0].label != label
            client.delete_feedback(corrected.id)
            assert client.match(known, keep=False).results[0].label == label
            assert client.undo_unknowns(done.change).deleted == 2
            assert client.delete_unknowns(status="dropped").deleted >= 1
            client.delete_items(filter={"label": label})
            assert {entry.label for entry in client.unknowns(decision="match").unknowns} == {None}
