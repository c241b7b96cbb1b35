"""Filters as Milvus expressions: none of the rows that a filter holds for is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from index.engines.milvus.expressions import LISTED_UP_TO, compile_filter
from index.engines.milvus.server import get_server
from index.gallery.gallery import Gallery
from index.items.filters import select_rows
from tests.engines.galleries import hash_model, make_gallery, make_queries, write_gallery
from tests.engines.test_contract import FILTERS

TIMES = frozenset({"seen"})
MORE: list[dict[str, Any]] = [
    {"label": {"$ne": "c03"}},
    {"label": 7},
    {"label": {"$exists": False}},
    {"label": {"$gt": "c10", "$lt": "c20"}},
    {"camera": {"$in": [0, 2]}},
    {"camera": {"$in": []}},
    {"$not": {"weight": {"$gt": 10}}},
    {"$not": {"weight": {"$exists": True}}},
    {"$not": {"$and": [{"camera": 1}, {"good": True}]}},
    {"seen": {"$ne": "1970-01-02T00:00:00Z"}},
    {"place": {"$in": ["süd", "nowhere"]}},
    {"tags": {"$contains": "süd"}},
    {"tags": {"$exists": True}},
    {"marks": {"$contains": 1}},
    {"marks": {"$contains": 2.0}},
    {"$not": {"marks": {"$contains": 0.5}}},
]


@pytest.mark.parametrize(
    ("condition", "expression"),
    [
        ({}, ""),
        ({"label": "a"}, 'label == "a"'),
        ({"label": 7}, 'label == "7"'),
        ({"label": {"$in": ["a", 'b"c']}}, 'label in ["a", "b\\"c"]'),
        ({"x": 1.5}, 'item["x"] == 1.5'),
        ({"x": {"$ne": True}}, '(not exists item["x"] or (item["x"] != true))'),
        ({"x": {"$gt": 1, "$lte": 2}}, '(item["x"] > 1 and item["x"] <= 2)'),
        ({"$not": {"x": {"$gt": 1}}}, '(not exists item["x"] or (item["x"] <= 1))'),
        ({"$not": {"a": 1, "b": 2}}, '((not exists item["a"] or (item["a"] != 1)) or '
         '(not exists item["b"] or (item["b"] != 2)))'),
        ({"x": {"$in": [1, 2]}}, '(item["x"] == 1 or item["x"] == 2)'),
        ({"x": {"$in": list(range(LISTED_UP_TO + 1))}}, f'item["x"] in {list(range(LISTED_UP_TO + 1))}'),
        ({"seen": {"$lt": "1970-01-01T00:00:01Z"}}, 'item["seen"] < 1000000000'),
        ({"x": {"$contains": "a"}}, 'json_contains(item["x"], "a")'),
        ({"x": {"$contains": 1}}, 'json_contains_any(item["x"], [1, 1.0])'),
        ({"x": {"$contains": 1.5}}, 'json_contains_any(item["x"], [1.5])'),
        ({"$not": {"x": {"$contains": "a"}}},
         '(not exists item["x"] or (not json_contains(item["x"], "a")))'),
        # what Milvus might compare differently is left to us
        ({"x": 2**60}, ""),
        ({"x": "two\nlines"}, ""),
        ({'x"] or true or item["y': 1}, ""),
        ({"$or": [{"label": "a"}, {"x": 2**60}]}, ""),
        ({"$and": [{"label": "a"}, {"x": 2**60}]}, 'label == "a"'),
        ({"$not": {"$or": [{"label": "a"}, {"x": 2**60}]}}, 'label != "a"'),
        ({"x": {"$contains": 2**60}}, ""),
        ({"x": {"$contains": "two\nlines"}}, ""),
    ],
)  # fmt: skip
def test_a_filter_becomes_an_expression(condition: dict[str, Any], expression: str) -> None:
    expected = f"shared == true or ({expression})" if expression else ""
    assert compile_filter(condition, TIMES) == expected


@pytest.mark.usefixtures("milvus")
def test_milvus_lets_through_what_a_filter_holds_for(tmp_path: Path) -> None:
    with Gallery.open(write_gallery(tmp_path / "b", "milvus", hash_model("filters"), 0.9)) as gallery:
        main = gallery.view.main
        assert main is not None
        server, name = get_server(), main.engine._collection.name  # type: ignore[attr-defined]
        shared = {int(main.nodes.node_of_row[20])}
        n_exact = 0
        for condition in [*filter(None, FILTERS), *MORE]:
            rows = server.call(
                "query", name, filter=compile_filter(condition, TIMES), output_fields=["node"], limit=999
            )
            found = {int(row["node"]) for row in rows}
            expected = set(main.nodes.node_of_row[select_rows(condition, main.items)].tolist())
            assert expected <= found, condition
            n_exact += found == expected | shared
        assert n_exact == len(FILTERS) - 1 + len(MORE), "and nothing else but the copies"


@pytest.mark.usefixtures("milvus")
def test_a_filter_that_milvus_refuses_is_answered_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("index.search.generation.EXACT_ROWS", 0)
    bundle = write_gallery(tmp_path / "b", "milvus", hash_model("refused filter"), 0.9)
    with Gallery.open(bundle) as gallery:
        condition = {"camera": {"$ne": 0}}
        expected = gallery.match(make_queries(), filter=condition)
        monkeypatch.setattr("index.engines.milvus.engine.compile_filter", lambda *_: "nonsense ((")
        assert gallery.match(make_queries(), filter=condition) == expected
        assert "does not take a filter" in caplog.text
        assert len(gallery.search(make_queries()[:1], 500, filter=condition)[0]) == sum(
            make_gallery().metadata["camera"] != 0
        )
