"""The binary search answer: read as it was written, described once, refused when damaged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from api_schemas.http.binary_search import LAYOUT, describe_layout, read_search_arrays, write_search_arrays
from common.errors import InputError
from tests.conftest import ROOT


class Hit(NamedTuple):
    """The least that a hit must have."""

    id: str
    label: str
    similarity: float
    score: float


RESULTS = [[Hit("ä-1", "a", 0.5, 1.5), Hit("2", "ж", 0.25, 1.0)], [], [Hit("3", "a", -0.5, -2.0)]]
CONTENT = write_search_arrays(RESULTS, "ab" * 32, 1.5)


def test_what_is_written_is_read() -> None:
    arrays = read_search_arrays(CONTENT)
    assert arrays.ends.tolist() == [2, 2, 3]
    assert (arrays.ids, arrays.labels) == (["ä-1", "2", "3"], ["a", "ж", "a"])
    np.testing.assert_array_equal(arrays.similarities, np.float32([0.5, 0.25, -0.5]))
    np.testing.assert_array_equal(arrays.scores, np.float32([1.5, 1.0, -2.0]))
    assert (arrays.model_hash, arrays.took_ms) == ("ab" * 32, 1.5)
    assert [arrays.ids[arrays.of(query)] for query in range(3)] == [["ä-1", "2"], [], ["3"]]


def test_the_sizes_of_the_layout_are_those_of_the_answer() -> None:
    counts = {"q": 3, "h": 3, "l": 2}
    sizes = [part for size, _ in LAYOUT[:-1] for part in size.replace("*", "").split(", ")]
    numbers = [int(size.rstrip("qhl")) * counts.get(size[-1], 1) for size in sizes]
    texts = "ä-123" + "aж"
    assert sum(numbers) + len(texts.encode()) == len(CONTENT)


def test_the_guide_has_the_same_layout() -> None:
    guide = (ROOT / "docs" / "serving.md").read_text()
    rows = "".join(f"| {size} | {content} |\n" for size, content in LAYOUT)
    assert rows in guide
    assert all(content in describe_layout() for _, content in LAYOUT)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        CONTENT[:40],
        CONTENT[:70],
        CONTENT[:-1],
        CONTENT + b"x",
        CONTENT[:-1] + b"\xff",
        CONTENT.replace(np.array([0, 1, 0], "<u4").tobytes(), np.array([0, 9, 0], "<u4").tobytes()),
    ],
)
def test_a_damaged_answer_is_refused(damaged: bytes) -> None:
    with pytest.raises(InputError, match="binary search result"):
        read_search_arrays(damaged)
