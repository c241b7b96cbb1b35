"""What every page of the navigation is held to: usable by all, on a phone, with hostile labels, read-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from limen.client import Client
from service.web.navigation import PAGES
from tests.service.bundles import HOSTILE, make_hostile_bundle, serve

PATHS = [page.path for page in PAGES]
# elements that a label would have made, had it been taken for HTML
PLANTED = "img[src='x'], [onerror], main b:text-is('bold'), a[href^='javascript']"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with hostile labels that has decided, been judged, and keeps what it did not know."""
    folder = tmp_path_factory.mktemp("hostile")
    bundle = make_hostile_bundle(folder / "hostile")
    chosen = [
        str(item)
        for item, label in zip(bundle.gallery.ids, bundle.gallery.labels, strict=True)
        if label in HOSTILE
    ]
    with serve(bundle.path, data=folder / "data", keep_unknowns="all") as at, Client(at) as client:
        results = client.match([{"id": item} for item in chosen[:12]]).results
        client.match([{"vector": [0.25] * 16}, {"vector": [0.25, -0.25] * 8}])
        for result in results[:4]:
            client.feedback(decision_id=result.decision_id, same=True)
        yield at


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("width", "scheme"), [(1240, "light"), (390, "dark")])
def test_everybody_can_use_a_page_and_labels_are_text(
    open_page: Any, check_page: Any, hostile: str, path: str, width: int, scheme: str
) -> None:
    with open_page(hostile + path, width=width, scheme=scheme) as page:
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.wait_for_load_state("networkidle")
        check_page(page)
        assert page.locator("h1").count() == 1
        assert page.locator(PLANTED).count() == 0
        assert dialogs == []
        current = page.locator("nav.pages [aria-current=page]")
        assert current.get_attribute("href") == path
        box = current.bounding_box()
        assert box is not None
        assert 0 <= box["x"] < width, "the current page is in sight in the navigation"
        if path == "/dashboard":
            assert HOSTILE[0] in page.locator("#worst").inner_text()


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_readable_without_a_data_folder(address: str, path: str) -> None:
    answer = httpx.get(address + path, headers={"Accept": "text/html"}, timeout=60)
    assert answer.status_code == 200
    assert answer.text.count("<h1") == 1
    assert len(answer.content) < 2_000_000


def test_the_keyboard_skips_the_navigation(open_page: Any, address: str) -> None:
    with open_page(f"{address}/dashboard/models") as page:
        page.wait_for_selector("body[data-ready]")
        page.keyboard.press("Tab")
        assert page.locator(":focus").get_attribute("class") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
