"""The pool of unknowns over HTTP: kept, grouped, arranged, enrolled, undone, searched, erased."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import DIMENSION, ServiceBundle, make_clusters, serve


def make_strangers(seed: int, classes: int, items: int, spread: float = 0.08) -> tuple[Any, list[str]]:
    """Tight classes far from the gallery and each other: float32 [classes * items, d], and their names."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(3_000, DIMENSION))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    centres = np.empty((0, DIMENSION))
    while len(centres) < classes:
        near = np.concatenate([make_clusters(2, 40, 8, "class-").vectors, centres])
        centres = np.concatenate([centres, drawn[[(drawn @ near.T).max(axis=1).argmin()]]])
    noise = spread * rng.normal(size=(classes, items, DIMENSION))
    rows = (centres[:, None] + noise).reshape(-1, DIMENSION)
    names = [f"stranger-{number}" for number in range(classes) for _ in range(items)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), names


@pytest.fixture
def client(bundle: ServiceBundle, tmp_path: Path) -> Iterator[Client]:
    """A service that keeps unknown queries."""
    with serve(bundle.path, data=tmp_path, keep_unknowns="unknown") as at, Client(at, retries=0) as connected:
        yield connected


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so, or after a minute."""
    give_up = time.monotonic() + 60
    while not is_so() and time.monotonic() < give_up:
        time.sleep(0.05)


def ask(client: Client, rows: Any, **options: Any) -> list[Any]:
    return client.match([{"vector": row.tolist(), "metadata": options} for row in rows]).results


def group(client: Client) -> Any:
    assert client.wait(client.group_unknowns()).status == "done"
    return client.unknown_groups(members=100)


def test_unknown_queries_are_kept_with_what_was_decided(client: Client, bundle: ServiceBundle) -> None:
    rows, _ = make_strangers(0, 3, 4)
    results = ask(client, rows, camera=7)
    assert {result.decision for result in results} == {"unknown"}
    ask(client, bundle.gallery.vectors[:3])  # matches
    client.match([{"id": "item-0"}])
    kept = client.unknowns().unknowns
    assert len(kept) == len(rows)
    for entry, result, row in zip(reversed(kept), results, rows, strict=True):
        assert (entry.label, entry.candidate, entry.score) == (result.label, result.id, result.score)
        assert (entry.threshold, entry.operating_point) == (result.threshold, result.operating_point)
        assert entry.metadata == {"camera": 7}
        assert (entry.status, entry.group, entry.vector) == ("open", None, None)
        vector = client.unknown(entry.id).vector
        assert vector is not None
        np.testing.assert_allclose(vector, row, atol=1e-6)
    times = [entry.at for entry in kept]
    assert times == sorted(times, reverse=True)
    assert abs(times[0] - datetime.now(UTC)) < timedelta(minutes=5)


def test_raw_rows_and_several_vectors_are_kept_and_nothing_where_the_request_says_so(client: Client) -> None:
    rows, _ = make_strangers(1, 2, 3)
    client.match(3 * rows[:2])
    client.match([{"vectors": rows[2:4].tolist()}])
    client.match([{"vector": row.tolist()} for row in rows[4:]], keep=False)
    kept = [client.unknown(entry.id).vector for entry in client.unknowns().unknowns]
    mean = rows[2:4].mean(axis=0)
    np.testing.assert_allclose(kept, [mean / np.linalg.norm(mean), rows[1], rows[0]], atol=1e-5)


def test_pages_and_filters(client: Client) -> None:
    rows, _ = make_strangers(2, 1, 7)
    for number, row in enumerate(rows):
        ask(client, row[None], n=number, place="north" if number % 2 else "south")
    first = client.unknowns(limit=5)
    rest = client.unknowns(cursor=first.next_cursor, limit=5)
    assert [entry.metadata["n"] for entry in [*first.unknowns, *rest.unknowns]] == [6, 5, 4, 3, 2, 1, 0]
    assert rest.next_cursor is None
    north = client.unknowns(filter={"place": "north", "n": {"$gt": 1}}, limit=1)
    assert [entry.metadata["n"] for entry in north.unknowns] == [5]
    following = client.unknowns(cursor=north.next_cursor, filter={"place": "north", "n": {"$gt": 1}})
    assert [entry.metadata["n"] for entry in following.unknowns] == [3]
    assert client.unknowns(filter={"missing": {"$exists": True}}).unknowns == []
    middle = first.unknowns[3].at
    assert [entry.metadata["n"] for entry in client.unknowns(since=middle).unknowns] == [6, 5, 4, 3]
    assert [entry.metadata["n"] for entry in client.unknowns(until=middle).unknowns] == [2, 1, 0]
    with pytest.raises(ServiceError, match="no item has a field 'plaec'"):
        client.unknowns(filter={"plaec": "north"})


def test_groups_keep_their_ids_and_what_a_person_arranged(client: Client) -> None:
    rows, names = make_strangers(3, 4, 6)
    for row, name in zip(rows, names, strict=True):
        ask(client, row[None], truth=name)
    ask(client, make_strangers(3, 5, 1)[0][4:])  # alone
    before = group(client)
    assert [entry.size for entry in before.groups] == [6, 6, 6, 6]
    assert before.counts.ungrouped == 1
    by_truth = {entry.members[0].metadata["truth"]: entry for entry in before.groups}
    for name, entry in by_truth.items():
        assert {member.metadata["truth"] for member in entry.members} == {name}
    assert {entry.id for entry in group(client).groups} == {entry.id for entry in before.groups}

    split = [member.id for member in by_truth["stranger-0"].members[:2]]
    new = client.arrange_unknowns("split", ids=split)
    merged = [by_truth["stranger-1"].id, by_truth["stranger-2"].id]
    client.arrange_unknowns("merge", groups=merged)
    dropped = client.arrange_unknowns("drop", group=by_truth["stranger-3"].id)
    assert dropped.changed == 6
    more, _ = make_strangers(3, 4, 6, spread=0.0)
    ask(client, more[::6])  # one more of each class
    after = {entry.id: entry for entry in group(client).groups}
    assert after[merged[0]].size == 14
    sizes = after[new.group].size, after[by_truth["stranger-0"].id].size
    assert sorted(sizes) in ([2, 5], [3, 4])
    assert by_truth["stranger-3"].id not in after
    (away,) = client.unknown_groups(status="dropped").groups
    assert (away.id, away.size) == (by_truth["stranger-3"].id, 7)

    assert client.undo_unknowns(dropped.change).restored == 7
    assert client.unknown_groups(status="dropped").groups == []
    assert client.undo_unknowns(new.change).restored >= 6
    back = {entry.id: entry.size for entry in group(client).groups}
    assert back[by_truth["stranger-0"].id] == 7
    with pytest.raises(ServiceError, match="nothing to undo"):
        client.undo_unknowns(new.change)


def test_a_group_is_enrolled_matched_again_and_undone(client: Client) -> None:
    rows, names = make_strangers(4, 3, 8)
    for row, name in zip(rows, names, strict=True):
        ask(client, row[None], truth=name)
    groups = group(client).groups
    one = groups[0]
    truth = one.members[0].metadata["truth"]
    some = [member.id for member in one.members[:3]]
    done = client.enroll_unknowns("New one", ids=some, metadata={"by": "hand"})
    assert (done.enrolled, len(done.items), done.left_out) == (3, 3, [])
    item = client.item(done.items[0])
    assert (item.label, item.metadata) == ("New one", {"truth": truth, "by": "hand"})
    assert {entry.metadata["truth"] for entry in done.offered} == {truth}
    assert len(done.offered) == 5
    assert client.match([{"vector": rows[names.index(truth)].tolist()}]).results[0].label == "New one"

    again = client.enroll_unknowns("New one", ids=some)
    assert (again.change, again.items) == (done.change, done.items)
    with pytest.raises(ServiceError, match="already"):
        client.enroll_unknowns("Another", ids=some)
    offered = client.unknown_groups().offered
    assert [(entry.label, entry.size) for entry in offered] == [("New one", 5)]
    confirmed = client.enroll_unknowns("New one", ids=[entry.id for entry in done.offered])
    assert confirmed.enrolled == 5
    assert client.unknown_groups().counts.model_dump() == {
        "open": 16,
        "enrolled": 8,
        "dropped": 0,
        "ungrouped": 0,
        "overflowed": 0,
    }
    changes = client.unknown_groups().changes
    assert [(entry.kind, entry.label, entry.size) for entry in changes[:2]] == [
        ("enroll", "New one", 5),
        ("enroll", "New one", 3),
    ]
    items = client.info().items
    assert client.undo_unknowns(confirmed.change).model_dump() == {"restored": 5, "deleted": 5}
    assert client.undo_unknowns(done.change).model_dump() == {"restored": 3, "deleted": 3}
    assert client.info().items == items - 8
    assert client.unknown_groups().offered == []
    restored = {entry.id: entry.size for entry in client.unknown_groups().groups}
    assert restored == {entry.id: entry.size for entry in groups}
    assert (
        client.match([{"vector": rows[names.index(truth)].tolist()}], keep=False).results[0].decision
        == "unknown"
    )


def test_was_this_one_here_before(client: Client, bundle: ServiceBundle) -> None:
    rows, _ = make_strangers(5, 2, 3)
    ask(client, rows)
    kept = client.unknowns().unknowns
    hits = client.search_unknowns([{"vector": rows[4].tolist()}], k=4).results[0].hits
    assert hits[0].unknown.id == kept[1].id
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert [hit.same for hit in hits] == [True, True, True, False]
    similarities = [hit.similarity for hit in hits]
    assert similarities == sorted(similarities, reverse=True)
    verified = client.verify([({"vector": rows[4].tolist()}, {"vector": rows[0].tolist()})]).results[0]
    assert verified.decision == "no_match"
    assert (
        client.search_unknowns([{"id": "item-0"}], k=2, since=kept[0].at).results[0].hits[0].unknown.id
        == kept[0].id
    )


def test_what_is_erased_is_gone_from_the_file(bundle: ServiceBundle, tmp_path: Path) -> None:
    rows, _ = make_strangers(6, 1, 3)
    with serve(bundle.path, data=tmp_path, keep_unknowns="unknown") as at, Client(at) as client:
        ask(client, rows, who="Winifred Unmistakable")
        ids = [entry.id for entry in client.unknowns().unknowns]
        assert client.delete_unknown(ids[0]).deleted == 1
        with pytest.raises(ServiceError, match="No kept query"):
            client.delete_unknown(ids[0])
        done = client.enroll_unknowns("W", ids=[ids[1]])
        client.delete(done.items[0])
        assert [entry.id for entry in client.unknowns().unknowns] == [ids[2]], (
            "an erased item leaves no query"
        )
        assert client.delete_unknowns(filter={"who": "Winifred Unmistakable"}).deleted == 1
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.suffix != ".lock" and file.name != "audit.jsonl":
            assert b"Winifred Unmistakable" not in file.read_bytes(), file


def test_an_item_that_is_deleted_is_no_candidate_any_more(client: Client) -> None:
    rows, _ = make_strangers(7, 1, 1)
    (result,) = ask(client, rows)
    client.delete(result.id)
    (entry,) = client.unknowns().unknowns
    assert (entry.candidate, entry.label) == (None, None)


def test_the_oldest_go_first(bundle: ServiceBundle, tmp_path: Path) -> None:
    rows, _ = make_strangers(8, 1, 9)
    settings: dict[str, Any] = {"data": tmp_path, "keep_unknowns": "unknown", "unknowns_max": 4}
    with serve(bundle.path, **settings) as at, Client(at) as client:
        for number, row in enumerate(rows):
            ask(client, row[None], n=number)
        assert [entry.metadata["n"] for entry in client.unknowns().unknowns] == [8, 7, 6, 5]
        assert "beyond 4, the oldest" in client.info().kept_queries.stores
    (file,) = tmp_path.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "UPDATE unknowns SET at = at - 40 * 86400 WHERE metadata LIKE '%: 5}' OR metadata LIKE '%: 6}'"
        )
    settings["keep_unknowns"] = "off"
    with serve(bundle.path, **settings) as at, Client(at) as client:
        wait_until(lambda: len(client.unknowns().unknowns) == 2)
        assert [entry.metadata["n"] for entry in client.unknowns().unknowns] == [8, 7], "also where it is off"


@pytest.mark.parametrize("keep", ["off", "all"])
def test_the_setting_says_which_queries_are_kept(bundle: ServiceBundle, tmp_path: Path, keep: str) -> None:
    rows, _ = make_strangers(9, 1, 2)
    with serve(bundle.path, data=tmp_path, keep_unknowns=keep) as at, Client(at) as client:
        ask(client, [*rows, bundle.gallery.vectors[0]])
        decisions = [entry.decision for entry in client.unknowns().unknowns]
        assert decisions == ([] if keep == "off" else ["match", "unknown", "unknown"])
        assert client.info().kept_queries.keep == keep


def test_without_a_data_folder_nothing_is_kept_and_it_is_said(bundle: ServiceBundle) -> None:
    with serve(bundle.path, keep_unknowns="all") as at, Client(at, retries=0) as client:
        ask(client, make_strangers(10, 1, 1)[0])
        assert client.info().kept_queries.keep == "off"
        with pytest.raises(ServiceError, match="data folder"):
            client.unknowns()


def test_metadata_of_a_query_is_bounded(client: Client) -> None:
    row = make_strangers(11, 1, 1)[0][0].tolist()
    for wrong in (
        {"label": "x"},
        {"a": [1, "x"]},
        {"a": [[1]]},
        {"a": ["x"] * 65},
        {"t": "x" * 9000},
        {str(n): n for n in range(65)},
    ):
        with pytest.raises(ServiceError, match=r"queries.0.metadata"):
            client.match([{"vector": row, "metadata": wrong}])


def test_a_field_of_another_kind_is_left_out_and_said(client: Client) -> None:
    rows, _ = make_strangers(12, 1, 2)
    ask(client, rows[:1], camera="left", level=3)  # the gallery's cameras are numbers
    ask(client, rows[1:], level="three")
    kept = client.unknowns().unknowns
    assert [entry.metadata for entry in kept] == [{}, {"level": 3}]
    client.upsert([{"id": "x", "label": "x", "vector": rows[0].tolist(), "metadata": {"level": "high"}}])
    done = client.enroll_unknowns("y", ids=[entry.id for entry in kept])
    assert done.left_out == ["level"]


def test_lists_of_kept_queries_are_compared(client: Client) -> None:
    rows, _ = make_strangers(13, 1, 4)
    for row, tags in zip(rows, ([], ["red", "new"], [1, 2], ["new"]), strict=True):
        ask(client, row[None], tags=tags)
    kept = client.unknowns().unknowns
    assert [entry.metadata for entry in kept] == [
        {"tags": ["new"]},
        {},
        {"tags": ["red", "new"]},
        {"tags": []},
    ]
    red = client.unknowns(filter={"tags": {"$contains": "red"}}).unknowns
    assert [entry.id for entry in red] == [kept[2].id]
    with pytest.raises(ServiceError, match="use \\$contains or \\$exists"):
        client.unknowns(filter={"tags": "red"})
    client.enroll_unknowns("y", ids=[entry.id for entry in kept])
    result = client.search([{"id": "item-0"}], k=9, filter={"tags": {"$contains": "new"}}).results[0]
    assert sorted(hit.metadata["tags"] for hit in result.hits) == [["new"], ["red", "new"]]


def test_a_full_queue_is_counted_and_slows_nothing(bundle: ServiceBundle, tmp_path: Path) -> None:
    rows, _ = make_strangers(13, 1, 60)
    with (
        serve(bundle.path, data=tmp_path, keep_unknowns="unknown", unknowns_queue=10) as at,
        Client(at) as client,
    ):
        client.match(rows)
        kept = len(client.unknowns(limit=1000).unknowns)
        assert 10 <= kept < 60
        assert client.unknown_groups().counts.overflowed == 60 - kept
        assert (
            'limen_kept_queries_total{gallery="default",outcome="overflowed"}'
            in httpx.get(f"{at}/metrics").text
        )


def test_an_empty_condition_erases_nothing(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path, keep_unknowns="unknown") as at, Client(at, retries=0) as client:
        ask(client, make_strangers(5, 2, 2)[0])
        for empty in ({}, {"filter": {}}, {"filter": None}):
            answer = httpx.post(f"{at}/v1/unknowns/delete", json=empty)
            assert answer.status_code == 422
            assert "at least one condition is needed" in answer.json()["detail"]
        assert len(client.unknowns().unknowns) == 4


def test_a_time_is_written_out(bundle: ServiceBundle, tmp_path: Path) -> None:
    """To a parser of numbers "2026" is a minute of 1970, since which everything came."""
    with serve(bundle.path, data=tmp_path, keep_unknowns="unknown") as at, Client(at, retries=0) as client:
        ask(client, make_strangers(6, 1, 2)[0])
        for since in (2026, "2026", "1764500000", "yesterday", "2026-13-01", 0.5):
            for answer in (
                httpx.get(f"{at}/v1/unknowns", params={"since": since}),
                httpx.post(f"{at}/v1/unknowns/delete", json={"since": since}),
            ):
                assert answer.status_code == 422, since
                assert "send a time such as 2026-11-30T14:00:00Z" in answer.json()["detail"]
        yesterday = str(datetime.now(UTC).date() - timedelta(1))  # its midnight in UTC
        for name, n in (("since", 2), ("until", 0)):
            page = httpx.get(f"{at}/v1/unknowns", params={name: yesterday}).json()
            assert len(page["unknowns"]) == n


def test_vectors_that_cancel_out_are_decided_and_not_kept(client: Client) -> None:
    row = make_strangers(7, 1, 1)[0][0]
    (result,) = client.match([{"vectors": [row.tolist(), (-row).tolist()]}]).results
    assert result.decision == "unknown"
    assert client.unknowns().unknowns == []
