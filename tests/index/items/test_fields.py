"""Metadata fields: counted by item, bounded, and forgotten with the last item that has them."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from index.items.columns import FieldUse
from index.items.filters import select_rows
from index.items.item_table import ItemTable
from index.items.metadata import MetadataBounds, describe_value, name_some
from index.items.stored_item import (
    StoredItem,
    check_items,
    merge_fields,
)
from index.store.item_store import ItemStore
from tests.index.conftest import make_items, make_unit_rows

MAX_FIELDS_AN_ITEM, MAX_FIELDS, MAX_NAME_LENGTH, MAX_TEXT_LENGTH, MAX_VALUES = MetadataBounds()
VECTOR = make_unit_rows(np.random.default_rng(0), 1, 4)[0]


def item(name: str, **metadata: Any) -> StoredItem:
    return StoredItem(name, "l", VECTOR, metadata)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({f"f{n}": n for n in range(MAX_FIELDS_AN_ITEM + 1)}, "65 fields"),
        ({"n" * (MAX_NAME_LENGTH + 1): 1}, "128 characters, this one has 129"),
        ({"": 1}, "are taken"),
        ({"text": "x" * (MAX_TEXT_LENGTH + 1)}, "8192 characters, this one has 8193"),
        ({"n": 2**63}, "whole number of up to 64 bits"),
        ({"n": -(2**63) - 1}, "whole number of up to 64 bits"),
        ({"n": 10**5000}, "thousands of digits"),
        ({"n": [10**5000]}, "thousands of digits"),
        ({"tags": ["a"] * (MAX_VALUES + 1)}, "a list may have 64 values, this one has 65"),
        ({"tags": ["a", "x" * (MAX_TEXT_LENGTH + 1)]}, "8192 characters, this one has 8193"),
        ({"tags": ["a", "\ud800"]}, "half a character"),
        ({"tags": ["a", None]}, "list of texts or of numbers"),
        ({"tags": ["a", 1]}, "list of texts or of numbers"),
        ({"tags": [["a"]]}, "list of texts or of numbers"),
        ({"tags": [True]}, "list of texts or of numbers"),
        ({"tags": [float("inf")]}, "list of texts or of numbers"),
        ({"tags": [0.5, 2**60]}, "list of texts or of numbers"),
        ({"n\0": 1}, "NUL"),
        ({"n\ud800": 1}, "half a character"),
    ],
)
def test_what_an_item_may_hold_is_bounded(metadata: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        check_items([item("a", **metadata)])
    assert len(str(refusal.value)) < 400
    str(refusal.value).encode()


def test_the_bounds_themselves_are_allowed() -> None:
    widest = {f"{n:0{MAX_NAME_LENGTH}}": "x" * MAX_TEXT_LENGTH for n in range(MAX_FIELDS_AN_ITEM)}
    check_items([item("a", **widest), item("b", n=2**63 - 1), item("c", n=-(2**63))])
    check_items([item("a", t=["x" * MAX_TEXT_LENGTH] * MAX_VALUES, e=[], n=[1, 0.5], w=[2**60, 1])])


def test_a_field_of_lists_is_of_one_kind_of_values() -> None:
    empty = merge_fields([item("a", t=[])], [], {})
    assert empty == {"t": FieldUse("list", 1)}
    texts = merge_fields([item("b", t=["x"])], [], empty)
    assert texts == {"t": FieldUse("texts", 2)}
    assert merge_fields([item("c", t=[])], [], texts) == {"t": FieldUse("texts", 3)}
    assert merge_fields([item("b", t=[2**60])], [], empty) == {"t": FieldUse("integers", 2)}
    numbers = merge_fields([item("b", t=[1, 0.5])], [], empty)
    assert numbers == {"t": FieldUse("numbers", 2)}
    for known, value, says in (
        (texts, [1], "a list of texts in this gallery"),
        (texts, "x", "a list of texts in this gallery"),
        (numbers, ["x"], "a list of numbers"),
        (empty, 1, "a list in this gallery"),
        ({"t": FieldUse("text", 1)}, [], "the field is text"),
        ({"t": FieldUse("integers", 1)}, [0.5], "a list of whole numbers"),
    ):
        with pytest.raises(InputError, match=says):
            merge_fields([item("c", t=value)], [], known)
    assert merge_fields([item("c", t="x")], [{"t": []}], empty) == {"t": FieldUse("text", 1)}, "forgotten"


def test_a_gallery_has_so_many_fields_and_an_error_names_ten() -> None:
    known = {f"old{n}": FieldUse("number", 1) for n in range(MAX_FIELDS - 1)}
    fields = merge_fields([item("a", new=1)], [], known)
    assert len(fields) == MAX_FIELDS
    with pytest.raises(InputError, match="256 metadata fields") as refusal:
        merge_fields([item("a", **{f"new{n:02}": 1 for n in range(20)})], [], known)
    assert "new09 and 10 more" in str(refusal.value)
    assert "new10" not in str(refusal.value)
    # a gallery that was built with more can be written to, as long as there are no new ones
    wide = {f"old{n}": FieldUse("number", 2) for n in range(1_000)}
    assert merge_fields([item("a", old1=1)], [], wide)["old1"] == FieldUse("number", 3)
    # fields that the replaced item takes along make room
    assert "new" in merge_fields([item("a", new=1)], [{"old0": 1}], {**known, "last": FieldUse("text", 9)})


def test_kinds_of_numbers() -> None:
    big = {"n": FieldUse("integer", 1)}
    assert merge_fields([item("a", n=5)], [], big)["n"] == FieldUse("integer", 2)
    for known, value, says in (
        (big, 0.5, "a whole number"),
        ({"n": FieldUse("number", 1)}, 2**60, "a number"),
    ):
        with pytest.raises(InputError, match=f"the field is {says} in this gallery"):
            merge_fields([item("a", n=value)], [], known)
    assert merge_fields([item("a", n=2**60)], [], {})["n"] == FieldUse("integer", 1)
    assert merge_fields([item("a", n=0.5)], [{"n": 2**60}], big)["n"] == FieldUse("number", 1), "the last one"


def test_counts_are_those_of_the_items_after_any_writes(tmp_path: Path) -> None:
    dice = random.Random(0)
    state: dict[str, dict[str, Any]] = {}
    with closing(ItemStore(tmp_path / "limen.sqlite")) as store:
        for _ in range(60):
            names = dice.sample("abcdefghij", 3)
            if dice.random() < 0.7:
                new = {
                    name: {field: dice.choice([1, None]) for field in dice.sample("uvwxyz", 3)}
                    for name in names
                }
                store.upsert([item(name, **metadata) for name, metadata in new.items()], "m")
                state |= new
            else:
                store.delete(names)
                state = {name: metadata for name, metadata in state.items() if name not in names}
            held = [
                field for metadata in state.values() for field, value in metadata.items() if value is not None
            ]
            expected = {field: FieldUse("number", held.count(field)) for field in set(held)}
            assert store._fields == expected
            store.reload()
            assert store._fields == expected


def test_an_unknown_field_is_answered_with_the_nearest_or_ten() -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 3), place=[1, 2, 3])
    table = ItemTable.from_set(items, np.arange(3), np.zeros(3, dtype=bool))
    wide = {f"field{n:05}": "number" for n in range(50_000)}
    with pytest.raises(InputError, match="and 49") as refusal:
        select_rows({"zzz": 1}, table, wide)  # type: ignore[arg-type]
    assert len(str(refusal.value)) < 400
    with pytest.raises(InputError, match="did you mean 'field00017'"):
        select_rows({"field0017": 1}, table, {"field00017": "number", "other": "text"})


def test_messages_stay_short() -> None:
    assert name_some([f"n{n}" for n in range(10)]).endswith("n9")
    assert name_some([f"n{n:02}" for n in range(11)]).endswith("n09 and 1 more")
    assert len(name_some(["x" * 10_000])) == 60
    assert describe_value(10**5_000) == "a number of thousands of digits"
    assert len(describe_value("x" * 1_000)) == 60
