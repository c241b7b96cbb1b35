"""The method pages say what the code says."""

from __future__ import annotations

import pytest

from scripts.method_pages import FOLDER, MARKER, index, page
from training.losses import LOSSES


def test_the_index_is_current() -> None:
    assert (FOLDER / "index.md").read_text() == index(), "run python scripts/method_pages.py"


@pytest.mark.parametrize("name", list(LOSSES))
def test_each_page_is_current(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text()
    assert text.partition(MARKER)[0] + MARKER == page(name), "run python scripts/method_pages.py"
