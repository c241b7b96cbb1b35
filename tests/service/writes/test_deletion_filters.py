"""Deletions by filter and by ids: numbers of any size, and an audit line that names all that is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.bundles import serve


def read_lines(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("condition", "deleted"),
    [
        ('{"camera": {"$lt": 18446744073709551616}}', 320),
        ('{"camera": {"$gt": -%s}}' % ("9" * 400), 320),
        ('{"$not": {"camera": 1000000000000000000000}}', 320),
        ('{"camera": {"$nin": [9223372036854775808, 0]}}', 213),
        ('{"camera": {"$lte": 0, "$gte": -18446744073709551616}}', 107),
        ('{"camera": 18446744073709551616}', 0),
        ('{"camera": {"$in": [%s]}}' % ("9" * 400), 0),
    ],
)
def test_numbers_of_any_size_delete_what_they_say_and_are_logged(
    bundle: Any, tmp_path: Path, condition: str, deleted: int
) -> None:
    with serve(bundle.path, data=tmp_path) as at:
        answer = httpx.post(
            f"{at}/v1/items/delete",
            content=f'{{"filter": {condition}}}',
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["deleted"]) == (200, deleted), answer.text
        assert httpx.get(f"{at}/v1/info").json()["items"] == 320 - deleted
    lines = read_lines(tmp_path) if deleted else []
    assert len(lines) == bool(deleted)
    for line in lines:
        assert line["filter"] == json.loads(condition)
        assert (line["n"], len(set(line["ids"]))) == (deleted, deleted)


@pytest.mark.parametrize("number", ["18446744073709551616", "1" + "0" * 400, "-1" + "0" * 400, "1e999"])
def test_a_search_with_a_number_of_any_size_is_answered(bundle: Any, start: Any, number: str) -> None:
    at = start(bundle.path)
    condition = f'{{"camera": {{"$gt": {number}}}}}'
    for path, more in (("search", '"k": 3,'), ("match", "")):
        answer = httpx.post(
            f"{at}/v1/{path}",
            content=f'{{"queries": [{{"id": "item-0"}}], {more} "filter": {condition}}}',
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == (422 if number == "1e999" else 200), answer.text
        if path == "search" and answer.status_code == 200:
            assert len(answer.json()["results"][0]["hits"]) == (3 if number.startswith("-") else 0)


def test_ids_of_no_items_hide_nothing_in_the_log(bundle: Any, tmp_path: Path) -> None:
    decoys = [f"a-{number:04}" for number in range(300)]
    with serve(bundle.path, data=tmp_path) as at:
        answer = httpx.post(f"{at}/v1/items/delete", json={"ids": [*decoys, "item-7", *decoys]})
        assert answer.json()["deleted"] == 1
        gone = [f"item-{number}" for number in range(100, 320)]
        assert httpx.post(f"{at}/v1/items/delete", json={"ids": gone}).json()["deleted"] == 220
        assert httpx.post(f"{at}/v1/items/delete", json={"ids": decoys}).json()["deleted"] == 0
    first, second = read_lines(tmp_path)
    assert (first["ids"], first["n"], first["requested"]) == (["item-7"], 1, 601)
    assert (second["ids"], second["n"]) == (sorted(gone), 220)
