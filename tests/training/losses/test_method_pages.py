"""The method pages say what the code says."""

from __future__ import annotations

import pytest

from scripts.method_pages import FOLDER, MARKER, render_index, render_page
from training.losses import LOSSES


def test_the_index_is_current() -> None:
    assert (FOLDER / "index.md").read_text() == render_index(), "run python scripts/method_pages.py"


@pytest.mark.parametrize("name", list(LOSSES))
def test_each_page_is_current(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text()
    assert text.partition(MARKER)[0] + MARKER == render_page(name), "run python scripts/method_pages.py"
