"""Queries and items: tables of pairs, columns of roles, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from common.errors import InputError
from tests.training.runs import EVERYTHING, load_made
from training.data.items import Items, read_roles
from training.data.pair_labels import group_matches, holds_matches

TITLES = [("baker", "bread"), ("baker", "cakes"), ("cook", "soup"), ("chef", "soup"), ("soup", "spoons")]


def test_pairs_become_queries_and_items_of_the_classes_that_they_connect() -> None:
    queries, items = zip(*TITLES, strict=True)
    table = pa.table({"query": queries, "item": items})
    assert holds_matches(table, "label")
    matches = group_matches(table, Path("pairs.csv"))
    by_role = set(zip(matches.roles.tolist(), matches.texts.tolist(), matches.labels.tolist(), strict=True))
    assert by_role == {
        ("query", "baker", "bread"),
        ("item", "bread", "bread"),
        ("item", "cakes", "bread"),
        ("query", "cook", "soup"),
        ("query", "chef", "soup"),
        ("item", "soup", "soup"),
        ("query", "soup", "spoons"),  # as a query it is another text than as an item
        ("item", "spoons", "spoons"),
    }


def test_a_table_with_labels_is_no_table_of_pairs() -> None:
    table = pa.table({"query": ["a"], "item": ["b"], "label": ["c"]})
    assert not holds_matches(table, "label")


def test_classes_are_called_by_the_beginning_of_an_item_and_stay_apart() -> None:
    long = "x" * 100
    table = pa.table({"query": ["a", "b"], "item": [f"{long}1", f"{long}2"]})
    labels = group_matches(table, Path("pairs.csv")).labels
    assert sorted(set(labels.tolist())) == ["x" * 80, "x" * 80 + " (2)"]


def make_items(roles: list[object]) -> Items:
    n = len(roles)
    column = np.ma.array([str(role) for role in roles], mask=[role is None for role in roles])
    ids, labels = np.array([f"i{row}" for row in range(n)]), np.array(["a"] * n)
    return Items(np.zeros((n, 2), np.float32), labels, ids, {"role": column})


def test_roles_follow_the_rows_of_a_subset() -> None:
    items = read_roles(make_items(["query", "item", "query"]), "role", "data")
    subset = items.subset(np.array([2, 1]))
    assert subset.is_query is not None
    assert subset.is_query.tolist() == [True, False]
    assert read_roles(items, None, "data").is_query is not None  # as they were


@pytest.mark.parametrize(
    ("roles", "column", "sentence"),
    [
        (["query", "item"], "side", "has no column 'side'; found role"),
        (["query", "Item"], "role", "item 'i1' has 'Item' in column 'role', expected 'query' or 'item'"),
        (["query", None], "role", "item 'i1' has nothing in column 'role'"),
    ],
)
def test_other_roles_are_refused(roles: list[object], column: str, sentence: str) -> None:
    with pytest.raises(InputError, match=r"data\.role_column") as refused:
        read_roles(make_items(roles), column, "data")
    assert sentence in str(refused.value)


def test_a_part_without_queries_and_items_of_two_classes_is_refused(tmp_path: Path) -> None:
    lines = ["text,label,role", *(f"t{row},c{row % 8},item" for row in range(32))]
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"0 of 8 train classes have both a query and an item"):
        load_made(path, kind="text", role_column="role", split=EVERYTHING)
