"""The pages in a browser: light and dark, readable on a phone, without requests to other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.service.bundles import ServiceBundle, make_bundle, serve


def check_drawn(page: Page) -> None:
    page.wait_for_selector("body[data-drawn]")
    for chart in ("utility", "rates"):
        assert page.locator(f"#{chart} .main-svg").count() > 0
        lines = page.locator(f"#{chart} .scatterlayer path.js-line")
        assert lines.count() >= 2
        assert all(len(lines.nth(number).get_attribute("d") or "") > 100 for number in range(2))


def get_background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dashboard(open_page: Any, address: str, bundle: ServiceBundle, scheme: Any) -> None:
    with open_page(f"{address}/dashboard", scheme=scheme) as page:
        check_drawn(page)
        assert page.locator("h1").inner_text() == "clusters"
        assert page.locator("#worst tbody tr").count() == 10
        notes = page.locator("#rates .annotation-text").all_text_contents()
        assert {note.strip() for note in notes} == {"match", "verify"}
        assert "interval" in page.locator(".tile").first.inner_text()
        first = get_background(page)
        page.click("#theme")
        page.wait_for_function("document.body.dataset.drawn === document.documentElement.dataset.theme")
        assert get_background(page) != first
        page.reload()
        check_drawn(page)
        assert get_background(page) != first, "the choice outlives the page"


def test_dashboard_on_a_phone(open_page: Any, address: str) -> None:
    with open_page(f"{address}/dashboard", width=390) as page:
        check_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in (".tile", ".card", "#worst td.label", "#worst .with-bar b"):
            box = page.locator(selector).first.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390


def test_without_points_the_page_says_why(open_page: Any, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "pointless", points=False)
    with serve(bundle.path) as at, open_page(f"{at}/dashboard") as page:
        check_drawn(page)
        assert "12 classes are too few" in page.locator(".reason").first.inner_text()


def test_an_endpoint_can_be_tried_from_the_docs(open_page: Any, address: str) -> None:
    with open_page(f"{address}/docs") as page:
        card = page.locator("[data-path='/v1/search']")
        card.locator(".body").fill('{"queries": [{"id": "item-0"}], "k": 2}')
        card.locator(".send").click()
        card.locator(".answer").wait_for(state="visible")
        assert card.locator(".status").inner_text().startswith("200")
        assert '"similarity"' in card.locator(".answer").inner_text()
