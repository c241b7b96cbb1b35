"""The live page: decisions as they come, drift that raises an alert, what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from limen.client import Client
from tests.browser.conftest import OpenPage
from tests.service.bundles import ServiceBundle, serve

HOSTILE = '<img src=x onerror="document.title=1">'
CHARTS = ("decisions", "scores", "unknown", "stability", "latency")


def ask(at: str, bundle: ServiceBundle, n: int, offset: float = 0.0) -> None:
    """Queries near items; an offset of all of them is another sensor."""
    rng = np.random.default_rng(0)
    rows = bundle.gallery.vectors[rng.integers(0, len(bundle.gallery), n)]
    noisy = rows + 0.06 * rng.normal(size=rows.shape) + offset * np.eye(rows.shape[1])[0]
    with Client(at) as client:
        for start in range(0, n, 50):
            client.match(noisy[start : start + 50])


@pytest.fixture
def watched(bundle: ServiceBundle, tmp_path: Path) -> Iterator[str]:
    with serve(bundle.path, data=tmp_path / "data", monitor_interval=0.05) as at:
        yield at


def wait_for_look(page: Page) -> None:
    page.locator("body[data-looked]").wait_for()


def test_drifted_queries_raise_an_alert_that_the_page_shows(
    watched: str, bundle: ServiceBundle, open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    with open_page(f"{watched}/dashboard/live") as page:
        wait_for_look(page)
        assert page.locator("#alerts").inner_text() == "No alert fires."
        assert "no decision" in page.locator("#story").inner_text()
        ask(watched, bundle, 500, offset=0.9)
        card = page.locator("#alerts article").first
        card.wait_for()  # nobody reloads the page
        assert "500 decisions" in page.locator("#story").inner_text()
        assert "alert" in page.locator("#story").inner_text()
        assert {"score-drift", "query-drift"} & {
            row.get_attribute("data-rule")
            for row in page.locator("#rules tr[data-rule]").all()
            if "firing" in row.inner_text()
        }
        for chart in CHARTS:
            page.locator(f"#{chart} .main-svg").first.wait_for()
        page.locator("#decisions .barlayer .point").first.wait_for(state="attached")
        check_page(page)
        card.locator("input").fill(HOSTILE)
        card.get_by_role("button", name="I have seen it").click()
        page.locator("#alerts article.seen").first.wait_for()
        assert HOSTILE in page.locator("#alerts article.seen").first.inner_text()
        assert page.locator("#alerts img").count() == 0
        page.reload()
        page.locator("#alerts article.seen").first.wait_for()


def test_the_page_on_a_phone_in_the_dark(
    watched: str, bundle: ServiceBundle, open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    ask(watched, bundle, 300)
    with open_page(f"{watched}/dashboard/live", width=390, scheme="dark") as page:
        page.locator("#scores .barlayer .point").first.wait_for(state="attached")
        day = page.get_by_role("button", name="24 hours")
        day.click()
        expect(page.locator("#story")).to_contain_text("The last 24 hours: 300", timeout=60_000)
        assert day.get_attribute("aria-pressed") == "true"
        check_page(page)


def test_a_paused_page_stays_and_goes_on(watched: str, bundle: ServiceBundle, open_page: OpenPage) -> None:
    with open_page(f"{watched}/dashboard/live") as page:
        wait_for_look(page)
        page.get_by_role("button", name="Pause").click()
        before = page.locator("#story").inner_text()
        ask(watched, bundle, 50)
        page.wait_for_timeout(200)
        assert page.locator("#story").inner_text() == before
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#story")).to_contain_text("50 decisions", timeout=60_000)


def test_a_read_only_service_says_that_it_forgets(address: str, open_page: OpenPage) -> None:
    with open_page(f"{address}/dashboard/live") as page:
        wait_for_look(page)
        assert "--data" in page.locator(".lead").inner_text()
