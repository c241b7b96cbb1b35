"""The filter language against a reading of it anyone can check by eye."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from index.items.filters import select_rows
from index.items.item_table import ItemTable
from tests.index.conftest import make_items, make_unit_rows

N = 40
COLOURS: list[str | None] = ["red", "green", None, "blue", ""]
SIZES: list[float | None] = [1.5, 2.0, None, -3.0]
TAGS: list[list[str] | None] = [["red", "old"], [], None, ["old", "new", "old"], [""], ["red"]]
MARKS: list[list[float] | None] = [[1, 2.5], None, [0.0], [-0.0, 7], []]
LISTS = ("tags", "marks", "empty")
ROWS = [
    {
        "label": str(row % 7),
        "colour": COLOURS[row % 5],
        "size": SIZES[row % 4],
        "count": row % 3,
        "sold": row % 2 == 0,
        "tags": TAGS[row % 6],
        "marks": MARKS[row % 5],
        "empty": [[], None][row % 2],
    }
    for row in range(N)
]


@pytest.fixture(scope="module", params=["built", "read back"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ItemTable:
    """The rows above as a table, as it is built and as it is read from its file."""
    items = make_items(
        make_unit_rows(np.random.default_rng(0), N),
        [int(str(row["label"])) for row in ROWS],
        **{
            name: np.array([row[name] for row in ROWS], dtype=object if name in ("colour", "size") else None)
            for name in ("colour", "size", "count", "sold")
        },
        **{name: [row[name] for row in ROWS] for name in LISTS},
    )
    built = ItemTable.from_set(items, np.arange(N), np.zeros(N, dtype=bool))
    if request.param == "built":
        return built
    file = Path(tmp_path_factory.mktemp("items")) / "items.parquet"
    built.save(file)
    return ItemTable.load(file)


def matches_filter(condition: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """The filter language, one row at a time."""
    return all(_matches_key(name, operand, row) for name, operand in condition.items())


def _matches_key(name: str, operand: Any, row: Mapping[str, Any]) -> bool:
    if name == "$and":
        return all(matches_filter(part, row) for part in operand)
    if name == "$or":
        return any(matches_filter(part, row) for part in operand)
    if name == "$not":
        return not matches_filter(operand, row)
    comparisons = operand if isinstance(operand, Mapping) else {"$eq": operand}
    return all(_matches_comparison(row.get(name), how, value, name) for how, value in comparisons.items())


def _matches_comparison(held: Any, how: str, value: Any, name: str) -> bool:
    if name == "label":
        value = [str(entry) for entry in value] if isinstance(value, list) else str(value)
    ordered = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
    if how in ordered:
        return held is not None and bool(ordered[how](held, value))
    return {
        "$eq": lambda: held == value,
        "$ne": lambda: held != value,
        "$in": lambda: held in value,
        "$nin": lambda: held not in value,
        "$exists": lambda: (held is not None) == value,
        "$contains": lambda: held is not None and value in held,
    }[how]()


FIELDS = {
    "label": st.one_of(st.integers(0, 8), st.integers(0, 8).map(str)),
    "colour": st.sampled_from(["red", "green", "blue", "violet", ""]),
    "size": st.sampled_from([1.5, 2, 2.0, -3.0, 0, 7.25]),
    "count": st.sampled_from([0, 1, 2, 1.5, 5]),
    "sold": st.booleans(),
    "tags": st.sampled_from(["red", "old", "new", "violet", ""]),
    "marks": st.sampled_from([1, 1.0, 2.5, 0, 7, 9]),
    "empty": st.sampled_from(["red", 1]),
}


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    """One comparison, in its short or its long form."""
    name = draw(st.sampled_from(list(FIELDS)))
    hows = ["$eq", "$ne", "short", "$in", "$nin", "$exists"]
    if name in ("size", "count", "colour"):
        hows += ["$gt", "$gte", "$lt", "$lte"]
    if name in LISTS:
        hows = ["$contains", "$exists"]
    how = draw(st.sampled_from(hows))
    if how == "$exists" and name != "label":
        return {name: {how: draw(st.booleans())}}
    if how in ("$in", "$nin"):
        return {name: {how: draw(st.lists(FIELDS[name], max_size=3))}}
    value = draw(FIELDS[name])
    return {name: value} if how in ("short", "$exists") else {name: {how: value}}


CONDITIONS = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(inner, inner).map(lambda two: {**two[0], **two[1]}),
    ),
    max_leaves=6,
)


@given(condition=CONDITIONS)
@settings(max_examples=150, deadline=None)
def test_rows_that_match_are_those_that_read_true(table: ItemTable, condition: dict[str, Any]) -> None:
    expected = [number for number, row in enumerate(ROWS) if matches_filter(condition, row)]
    assert select_rows(condition, table).tolist() == expected


def test_seven_is_seven_for_labels(table: ItemTable) -> None:
    assert select_rows({"label": 3}, table).tolist() == select_rows({"label": "3"}, table).tolist() != []


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ({"colour": {"$eq": 7}}, "'colour' is text"),
        ({"size": "large"}, "'size' is a number"),
        ({"size": True}, "'size' is a number"),
        ({"sold": 1}, "'sold' is a boolean"),
        ({"sold": {"$gt": False}}, "'sold' is a boolean"),
        ({"label": 1.5}, "'label' is text"),
        ({"label": True}, "'label' is text"),
        ({"label": {"$gt": 3}}, "'label' is text"),
        ({"size": {"$gt": float("nan")}}, "nan"),
        ({"size": None}, "None"),
        ({"shade": "red"}, "no item has a field 'shade'"),
        ({"size": {"$gte": 1, "$gtr": 2}}, "did you mean $gt"),
        ({"size": {}}, "no comparison"),
        ({"$xor": []}, "'$xor' is no operator"),
        ({"$and": []}, "non-empty list"),
        ({"$or": {"size": 1}}, "non-empty list"),
        ({"$not": [1]}, "must be an object"),
        ({"colour": {"$in": "red"}}, "takes a list"),
        ({"colour": {"$exists": 1}}, "takes true or false"),
        (
            {"tags": "red"},
            "$eq on 'tags' compares single values, but 'tags' is a list of texts: use $contains",
        ),
        ({"$not": {"$or": [{"tags": {"$nin": ["red"]}}]}}, "$nin on 'tags' compares single values"),
        ({"$and": [{"marks": {"$gte": 1}}]}, "'marks' is a list of numbers: use $contains or $exists."),
        ({"empty": {"$ne": 1}}, "'empty' is a list: use $contains"),
        ({"tags": {"$contains": 1}}, "is given 1, but 'tags' is a list of texts"),
        ({"tags": {"$contains": ["red"]}}, "is given ['red'], but 'tags' is a list of texts"),
        ({"marks": {"$contains": True}}, "is given True, but 'marks' is a list of numbers"),
        ({"empty": {"$contains": None}}, "is given None"),
        ({"colour": {"$contains": "red"}}, "takes a field of lists, but 'colour' is text: use $eq or $in."),
        ({"label": {"$contains": "1"}}, "takes a field of lists, but 'label' is text"),
        ({"tagz": {"$contains": "1"}}, "did you mean 'tags'"),
    ],
)
def test_what_cannot_be_meant_is_refused(table: ItemTable, condition: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=r"^filter: ") as caught:
        select_rows(condition, table)
    assert says in str(caught.value)


def test_a_field_nobody_has_does_not_exist(table: ItemTable) -> None:
    assert select_rows({"shade": {"$exists": True}}, table).tolist() == []
    assert len(select_rows({"shade": {"$exists": False}}, table)) == N


def test_nesting_ends_somewhere(table: ItemTable) -> None:
    condition: dict[str, Any] = {"count": 1}
    for _ in range(100):
        condition = {"$not": condition}
    with pytest.raises(InputError, match="nested deeper"):
        select_rows(condition, table)
