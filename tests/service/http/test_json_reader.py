"""Large JSON bodies, read in steps: the same values and refusals as in one call, at a bounded cost."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Annotated, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_schemas.base import Schema
from api_schemas.http.decisions import EmbeddingsRequest, SearchRequest
from api_schemas.http.gallery import DeleteRequest, UpsertRequest
from service.errors.problems import ServiceProblem
from service.http import json_reader
from service.http.json_reader import JsonReader

T = TypeVar("T", bound=Schema)
SEARCH = JsonReader(SearchRequest, "queries")
UPSERT = JsonReader(UpsertRequest, "items")
EMBED = JsonReader(EmbeddingsRequest, "input")
DELETE = JsonReader(DeleteRequest, "ids")


def read(reader: JsonReader[T], body: bytes | str, limit: int = 1000) -> T:
    """The body, read by itself."""
    content = body.encode() if isinstance(body, str) else body
    return asyncio.run(_read(reader, content, limit))


async def _read(reader: JsonReader[T], body: bytes, limit: int) -> T:
    return await reader.read(body, limit, asyncio.Lock(), 60.0)


def refuse(reader: JsonReader[Any], body: bytes | str, limit: int = 1000) -> str:
    """The slug and the sentence of the problem that refuses the body."""
    with pytest.raises(ServiceProblem) as refusal:
        read(reader, body, limit)
    return f"{refusal.value.kind.slug}: {refusal.value.detail}"


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every body counts as a large one."""
    monkeypatch.setattr(json_reader, "AT_ONCE", 8)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.integers(-9, 9), min_size=1, max_size=5)
METADATA = st.dictionaries(TEXTS, TEXTS | st.integers(-5, 5) | st.booleans() | st.none(), max_size=3)
ITEMS = st.fixed_dictionaries({"id": TEXTS, "label": TEXTS, "vector": NUMBERS, "metadata": METADATA})
BODIES = st.one_of(
    st.tuples(st.just(UPSERT), st.fixed_dictionaries({"items": st.lists(ITEMS, min_size=1, max_size=6)})),
    st.tuples(
        st.just(SEARCH),
        st.fixed_dictionaries(
            {"queries": st.lists(st.fixed_dictionaries({"vector": NUMBERS}), min_size=1, max_size=9)},
            optional={"k": st.integers(1, 9), "filter": METADATA, "include": st.just(["vector"])},
        ),
    ),
    st.tuples(st.just(DELETE), st.fixed_dictionaries({"ids": st.lists(TEXTS, min_size=1, max_size=9)})),
    st.tuples(
        st.just(EMBED),
        st.fixed_dictionaries({"input": st.lists(TEXTS, min_size=1) | st.lists(NUMBERS, min_size=1)}),
    ),
)


@pytest.mark.usefixtures("in_small_steps")
def test_read_in_steps_as_in_one_call() -> None:
    @settings(max_examples=150, deadline=None, database=None)
    @given(case=BODIES, indent=st.sampled_from([None, 1]), escaped=st.booleans())
    def check(case: tuple[JsonReader[Any], dict[str, Any]], indent: int | None, escaped: bool) -> None:
        reader, content = case
        body = json.dumps(content, indent=indent, ensure_ascii=escaped).encode()
        whole = reader._body.validate_json(body)
        in_steps = read(reader, body)
        assert in_steps.model_dump(warnings=False) == whole.model_dump(warnings=False)
        assert in_steps.model_fields_set == whole.model_fields_set

    check()


@pytest.mark.usefixtures("in_small_steps")
def test_no_text_that_is_not_json_is_read() -> None:
    body = b'{"k": 3, "queries": [{"vector": [1.5, -2e3]}, {"id": "a\\"b"}], "exact": true}'
    read(SEARCH, body)
    for end in range(len(body)):
        assert "not JSON" in refuse(SEARCH, body[:end]), body[:end]
    for wrong in (
        '{"queries": [{"id": "a"},]}',
        '{"queries": [{"id": "a"}]} x',
        '{"queries": [{"id": "a"} 3]}',
    ):
        assert "not JSON" in refuse(SEARCH, wrong + " " * 20)
    for wrong in ("{queries: []}", "{'queries': []}", '{"queries": [{"id": "\\ud800"}]}', '{"queries": [}]}'):
        assert "not JSON" in refuse(SEARCH, wrong + " " * 20)


@pytest.mark.usefixtures("in_small_steps")
def test_refusals_name_the_element() -> None:
    good = '{"vector": [1, 2]}'
    assert "invalid-request: queries.3.vector.1: send a number" in refuse(
        SEARCH, f'{{"queries": [{good}, {good}, {good}, {{"vector": [1, "x"]}}]}}'
    )
    assert "queries.2: exactly one" in refuse(SEARCH, f'{{"queries": [{good}, {good}, {{}}, {{}}]}}')
    assert "limit-exceeded: queries: over 2 given" in refuse(
        SEARCH, f'{{"queries": [{good}, {good}, {good}]}}', 2
    )
    assert "kk: unknown field" in refuse(SEARCH, f'{{"queries": [{good}, {good}], "kk": 1}}')
    assert "queries: send at least 1" in refuse(SEARCH, '{"queries": [               ], "k": 1}')
    assert "queries: this field is required" in refuse(SEARCH, '{"k": 1                    }')
    assert "send an object" in refuse(SEARCH, "[" + " " * 90 + "]")
    assert "queries: send a list" in refuse(SEARCH, '{"queries": {"0": {"id": "x"}}}')


@pytest.mark.parametrize(
    ("reader", "body", "words"),
    [
        (UPSERT, b'{"items": [' + b"{}," * 2_000_000 + b"{}]}", "over 1000 given"),
        (SEARCH, b'{"queries": [' + b'{"id":"a"},' * 600_000 + b"{}]}", "over 1000 given"),
        (SEARCH, b'{"queries": [' + b"[" * 6_000_000, "nested too deeply"),
        (SEARCH, b'{"queries": [{"vector": [' + b"1," * 3_000_000 + b"1]}]}", "over 100000 values"),
        (SEARCH, b'{"queries": [{"vector": [' + b"[]," * 2_000_000 + b"1]}]}", "lists and objects"),
        (SEARCH, b"{" + b'"k":1,' * 1_000_000 + b'"k":1}', "over 100 fields"),
        (SEARCH, b'{"filter": {"label": {"$in": [' + b"1," * 3_000_000 + b"1]}}}", "over 100000 values"),
        (SEARCH, b'{"queries": "' + b'\\"' * 3_000_000, "not JSON"),
        (EMBED, b'{"input": [' + b"1," * 3_000_000 + b"1]}", "over 1000 given"),
        (SEARCH, b'{"queries": ' + b" " * 3_000_000 + b"[]}", "not JSON"),
        (SEARCH, b'{"k": ' + b"1" * 3_000_000 + b"}", "not JSON"),
        (SEARCH, b'{"queries": [{' + b'"k":1,' * 1_000_000 + b'"k":1}]}', "queries.0: over 100000 values"),
    ],
    ids=[
        "empty items",
        "too many",
        "deep",
        "wide",
        "lists",
        "fields",
        "filter",
        "escapes",
        "numbers",
        "blanks",
        "digits",
        "names",
    ],
)
def test_what_a_body_costs_is_bounded(reader: JsonReader[Any], body: bytes, words: str) -> None:
    tracemalloc.start()
    try:
        assert words in refuse(reader, body)
        assert tracemalloc.get_traced_memory()[1] < len(body) + (24 << 20)
    finally:
        tracemalloc.stop()


def test_others_have_their_turn_while_a_large_body_is_read() -> None:
    row = "[" + ",".join(["0.123456"] * 512) + "]"
    body = ('{"queries": [' + ",".join([f'{{"vector": {row}}}'] * 900) + "]}").encode()

    async def count_turns() -> tuple[int, SearchRequest]:
        turns = 0
        reading = asyncio.create_task(_read(SEARCH, body, 1000))
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, reading.result()

    turns, parsed = asyncio.run(count_turns())
    assert len(parsed.queries) == 900
    assert turns > len(body) // json_reader.AT_ONCE


def test_a_text_may_hold_anything() -> None:
    text = '[{"]}\\", ' * 20_000
    parsed = read(EMBED, json.dumps({"input": [text, "b"], "model": "m"}), 10)
    assert parsed.input == [text, "b"]
    single = read(EMBED, json.dumps({"input": text}), 10)
    assert single.input == text


def test_elements_are_those_of_the_models_list() -> None:
    class Two(Schema):
        given: Annotated[list[int], "x"] | list[str] | None

    assert read(JsonReader(Two, "given"), '{"given": [' + "7," * 40_000 + '"x"]}', 100_000).given == [
        7
    ] * 40_000 + ["x"]
