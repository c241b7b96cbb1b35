"""Two services on one PostgreSQL, each with its own data folder: what one writes is found on both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from index.store.shared.records import SharedRecords
from index.store.tables import SETTINGS
from limen.cli.commands.keys import app
from limen.client import Client, ServiceError
from tests.index import postgres
from tests.service.bundles import serve
from tests.service.routers.test_unknowns import ask

ROWS = np.random.default_rng(5).normal(size=(8, 16))
SOON = 20.0  # seconds, also where the machine is busy: how fast it is, the benchmark says


class Pair(NamedTuple):
    """Two replicas, their addresses, and their server."""

    one: Client
    other: Client
    addresses: tuple[str, str]
    server: postgres.Server


@pytest.fixture(scope="module")
def pair(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two replicas of one bundle."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running_server())
        addresses = [
            stack.enter_context(
                serve(
                    bundle.path,
                    data=tmp_path_factory.mktemp(name),
                    database_url=server.address,
                    keep_unknowns="all",
                    max_staleness=2,
                )
            )
            for name in ("one", "other")
        ]
        one, other = (stack.enter_context(Client(at, retries=0)) for at in addresses)
        yield Pair(one, other, (addresses[0], addresses[1]), server)


def wait_for(holds: Callable[[], bool]) -> None:
    """Return once a condition holds."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "not seen"
        time.sleep(0.02)


def find(client: Client, row: Any) -> str:
    """The id of the nearest item."""
    return client.search([{"vector": row.tolist()}], k=1).results[0].hits[0].id


def count_of_size(client: Client) -> int:
    """How many kept queries have the size 3; none where nobody has heard of sizes."""
    try:
        return len(client.unknowns(filter={"size": 3}).unknowns)
    except ServiceError:
        return 0


def test_items_written_and_deleted_on_one_are_found_and_gone_on_both(pair: Pair) -> None:
    one, other, *_ = pair
    one.upsert([{"id": "a", "label": "a", "vector": ROWS[0].tolist(), "metadata": {"shelf": 1}}])
    other.upsert([{"id": "b", "label": "b", "vector": ROWS[1].tolist()}])
    assert find(other, ROWS[1]) == "b", "at once where it was written"
    for client in (one, other):
        wait_for(lambda client=client: find(client, ROWS[0]) == "a" and find(client, ROWS[1]) == "b")
        assert client.info().items == 322
        assert client.item("a").metadata == {"shelf": 1}
    assert other.delete_items(ids=["a"]).deleted == 1
    assert find(other, ROWS[0]) != "a"
    wait_for(lambda: find(one, ROWS[0]) != "a")
    one.upsert([{"id": "c", "label": "c", "vector": ROWS[2].tolist(), "metadata": {"spot": 1}}])
    with pytest.raises(ServiceError, match="spot"):  # known without having been seen
        other.upsert([{"id": "d", "label": "d", "vector": ROWS[3].tolist(), "metadata": {"spot": "x"}}])
    wait_for(lambda: find(other, ROWS[2]) == "c")
    assert one.info().model_dump()["replica"]["lag_changes"] == 0


def test_corrections_points_and_feedback_are_obeyed_by_both(bundle: Any, pair: Pair) -> None:
    one, other, *_ = pair
    known = bundle.gallery.vectors[:1]
    label = other.match(known).results[0].label
    decided = one.match(known).results[0]
    correction = other.correct(label, decision_id=decided.decision_id)  # signed by the other replica
    assert other.match(known).results[0].label != label
    wait_for(lambda: one.match(known).results[0].label != label)
    one.delete_feedback(correction.id)
    assert one.match(known).results[0].label == label
    wait_for(lambda: other.match(known).results[0].label == label)

    point = bundle.points["verify"].with_changes(threshold=-1.0)
    one.add_operating_point(point)
    one.activate_operating_point(point.id)
    items = [({"id": "item-1"}, {"id": "item-300"})]
    wait_for(lambda: other.verify(items).results[0].operating_point == point.id)
    other.activate_operating_point(bundle.points["verify"].id)
    wait_for(lambda: one.verify(items).results[0].operating_point == bundle.points["verify"].id)


def test_unknown_queries_of_both_are_one_pool(pair: Pair) -> None:
    one, other, *_ = pair
    ask(one, ROWS[4:5], truth="both")
    ask(other, ROWS[5:6], truth="both")
    for client in (one, other):
        wait_for(lambda client=client: len(client.unknowns(filter={"truth": "both"}).unknowns) == 2)
    first = other.unknowns(filter={"truth": "both"}).unknowns[0].id
    ask(other, ROWS[6:7], size=3)
    for client in (one, other):  # a field that one process has begun is known to both
        wait_for(lambda client=client: count_of_size(client) == 1)
    one.enroll_unknowns("enrolled", ids=[first])
    wait_for(lambda: other.info().items == one.info().items)
    assert other.item(f"unknown-{first}").label == "enrolled"


def test_keys_in_the_database_are_known_to_both_and_revoked_for_both(pair: Pair) -> None:
    def ask(at: str, key: str) -> int:
        return httpx.get(f"{at}/v1/info", headers={"Authorization": f"Bearer {key}"}).status_code

    _, _, addresses, server = pair
    options = ["--database-url", server.address]
    made = CliRunner().invoke(app, ["create", "--name", "me", "--scope", "admin", *options])
    key = made.output.strip()
    assert key.startswith("limen_")
    for at in addresses:
        wait_for(lambda at=at: httpx.get(f"{at}/v1/info").status_code == 401)
        assert ask(at, key) == 200
    assert CliRunner().invoke(app, ["list", *options]).output.startswith("me\tadmin\t")
    assert CliRunner().invoke(app, ["revoke", "me", *options]).output == "1 removed\n"
    for at in addresses:
        wait_for(lambda at=at: ask(at, key) == 401)
    # as it was before, for the other tests
    with closing(SharedRecords(server.address)) as shared, shared.begin_write() as connection:
        connection.execute(SETTINGS.delete().where(SETTINGS.c.name == "keys"))
        shared._store._topics.add("keys")
    for at in addresses:
        wait_for(lambda at=at: httpx.get(f"{at}/v1/info").status_code == 200)


def test_a_database_that_is_away_stops_writes_then_decisions_and_comes_back(pair: Pair) -> None:
    one, other, addresses, server = pair
    vector = {"vector": ROWS[6].tolist()}
    server.stop()
    try:
        for at in addresses:
            answer = httpx.get(f"{at}/readyz")
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            new = {"items": [{"id": "z", "label": "z", **vector}]}
            assert httpx.put(f"{at}/v1/items", json=new).status_code == 503
        asked = {"queries": [vector]}
        wait_for(lambda: httpx.post(f"{at}/v1/match", json=asked).json().get("type") == "/problems/stale")
        answer = httpx.post(f"{at}/v1/search", json=asked)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert httpx.get(f"{at}/livez").status_code == 200
        assert httpx.get(f"{at}/v1/info").json()["replica"]["lag_seconds"] > 2
    finally:
        server.start()
    for at in addresses:
        wait_for(lambda at=at: httpx.get(f"{at}/readyz").status_code == 200)
    one.upsert([{"id": "back", "label": "back", **vector}])
    wait_for(lambda: find(other, ROWS[6]) == "back")
    assert "limen_replica_lag_seconds" in httpx.get(f"{at}/metrics").text


def test_all_lines_of_the_audit_log_are_in_the_database(pair: Pair) -> None:
    one, *_, server = pair
    engine = sa.create_engine(server.address)
    schema = f"limen_{one.info().model_hash[:16]}"
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f'SELECT number, line FROM "{schema}".audit ORDER BY number')).all()
    engine.dispose()
    assert len({row.number for row in rows}) == len(rows)
    assert any('"action":"items.upsert"' in row.line and '"back"' in row.line for row in rows)


def test_a_model_activated_on_one_answers_on_both(two_bundles: Any, tmp_path: Path) -> None:
    folder, bundle, _ = two_bundles
    with (
        postgres.running() as database,
        serve(bundle.path, data=tmp_path / "one", bundles=folder, database_url=database) as first,
        serve(bundle.path, data=tmp_path / "other", bundles=folder, database_url=database) as second,
        Client(first, retries=0) as one,
        Client(second, retries=0) as other,
    ):
        assert one.wait(one.load_model("two")).status == "done"
        wait_for(lambda: {model.state for model in other.models().models} == {"active", "loaded"})
        one.activate_model("two")
        wait_for(lambda: other.info().model_hash == one.info().model_hash)
        other.activate_model("one")
        wait_for(lambda: other.info().model_hash == one.info().model_hash)
        one.activate_model("two")
        shutil.rmtree(tmp_path / "third", ignore_errors=True)
        with (
            serve(bundle.path, data=tmp_path / "third", bundles=folder, database_url=database) as third,
            Client(third) as late,
        ):
            assert late.info().model_hash == one.info().model_hash, "also one that starts later"
