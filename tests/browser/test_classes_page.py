"""The pages of classes in a browser: the worst is found, searched among 10,000, and seen with pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from limen.client import Client
from tests.browser.conftest import OpenPage
from tests.service.bundles import ServiceBundle, make_image_bundle, make_large_bundle, serve
from tests.service.routers.items.test_thumbnails import make_photo

HOSTILE = ["<img src=x onerror=alert(1)>", "a/b", "..", " a ", "\u202eright to left", "x" * 500]


def test_the_worst_class_is_found_and_its_pairs_are_seen(
    address: str, open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    with Client(address) as client:
        worst = client.classes().classes[0]
    with open_page(f"{address}/dashboard/classes") as page:
        page.wait_for_selector("body[data-mapped]")
        assert page.locator(".story b").inner_text() == worst.label
        assert page.locator("#rows tr").count() == 25
        assert page.locator("#rows td.label").first.inner_text() == worst.label
        check_page(page)
        page.locator("#rows a").first.click()
        page.wait_for_selector("#genuine")
        assert page.locator("h1").inner_text() == worst.label
        assert page.locator("#genuine li").count() == 10
        assert page.locator("#impostor li").count() == 10
        assert page.locator("svg.scores path").count() == 2
        assert page.locator("#items li").count() == 8
        check_page(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(
    address: str, open_page: OpenPage, check_page: Callable[[Page], None], scheme: str
) -> None:
    with open_page(f"{address}/dashboard/classes", width=390, scheme=scheme) as page:
        page.wait_for_selector("body[data-mapped]")
        check_page(page)
    with open_page(f"{address}/dashboard/classes/class-3", width=390, scheme=scheme) as page:
        check_page(page)


def test_the_table_is_sorted_and_paged(address: str, open_page: OpenPage) -> None:
    with Client(address) as client, open_page(f"{address}/dashboard/classes") as page:
        first = page.locator("#rows td.label").first
        by_label = client.classes(sort="label", limit=40).classes
        page.locator("th[data-sort=label] button").click()
        expect(first).to_have_text(by_label[0].label)
        page.locator("#next").click()
        expect(first).to_have_text(by_label[25].label)
        expect(page.locator("#position")).to_have_text("26 to 40 of 40")
        expect(page.locator("#next")).to_be_disabled()
        page.locator("#previous").click()
        expect(first).to_have_text(by_label[0].label)
        page.locator("#search").fill("class-39")
        expect(page.locator("#rows tr")).to_have_count(1)
        page.locator("#search").fill("nobody")
        expect(page.locator("#nothing")).to_be_visible()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of 10,000 measured classes."""
    with serve(make_large_bundle(tmp_path_factory.mktemp("bundles") / "many")) as at:
        yield at


def test_ten_thousand_classes_are_searched(many: str, open_page: OpenPage) -> None:
    with open_page(f"{many}/dashboard/classes") as page:
        page.wait_for_selector("body[data-mapped]")
        loaded = (
            "[...performance.getEntriesByType('resource'), performance.getEntriesByType('navigation')[0]]"
        )
        assert page.evaluate(f"{loaded}.reduce((sum, entry) => sum + entry.decodedBodySize, 0)") < 2_000_000
        page.locator("#search").fill("NAME 07123")
        expect(page.locator("#rows tr")).to_have_count(1)
        expect(page.locator("#rows td.label")).to_have_text("name 07123")
        assert page.evaluate("document.querySelectorAll('*').length") < 2_000
        page.locator("#rows a").click()
        page.wait_for_selector("#impostor li:nth-child(10)")
        assert page.locator("h1").inner_text() == "name 07123"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ServiceBundle]]:
    """A service of a bundle with an encoder of images, which keeps thumbnails of a few photos."""
    folder = tmp_path_factory.mktemp("photos")
    bundle = make_image_bundle(folder / "images")
    with serve(bundle.path, data=folder / "data", thumbnails=48) as at:
        with Client(at) as client:
            client.upsert(
                [{"id": f"p{n}", "label": f"who {n // 4}", "input": make_photo(n)} for n in range(16)]
            )
        yield at, bundle


def test_pairs_are_shown_with_their_pictures(
    photos: tuple[str, ServiceBundle], open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    at, _ = photos
    with open_page(f"{at}/dashboard/classes/who%201") as page:
        pictures = page.locator("#genuine img.picture")
        assert pictures.count() == 12, "six pairs of two"
        for number in range(12):
            pictures.nth(number).scroll_into_view_if_needed()
            expect(pictures.nth(number)).to_have_js_property("complete", True)
        sizes = pictures.evaluate_all(
            "(all) => all.map((img) => Math.max(img.naturalWidth, img.naturalHeight))"
        )
        assert set(sizes) == {48}
        check_page(page)


def test_a_picture_that_a_busy_service_refused_is_asked_for_again(
    photos: tuple[str, ServiceBundle], browser: Browser
) -> None:
    address, _ = photos
    asked: list[str] = []

    def fail_first_request(route: Route) -> None:
        asked.append(route.request.url)
        if asked.count(route.request.url) == 1:
            route.fulfill(status=503, body="busy")
        else:
            route.continue_()

    page = browser.new_page()
    page.route("**/thumbnail", fail_first_request)
    page.goto(f"{address}/dashboard/classes/who%201")
    picture = page.locator("img.picture").first
    picture.scroll_into_view_if_needed()
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    assert len(asked) > len(set(asked))
    page.close()


def test_hostile_labels_are_text(writable: str, bundle: ServiceBundle, open_page: OpenPage) -> None:
    with Client(writable) as client:
        items = [
            {"id": f"h{n}-{k}/..", "label": label, "vector": bundle.get_vector(2 * n + k)}
            for n, label in enumerate(HOSTILE)
            for k in range(2)
        ]
        client.upsert(items)
    with open_page(f"{writable}/dashboard/classes") as page:
        for label in HOSTILE:
            page.locator("#search").fill(label)
            link = page.locator("#rows td.label a").filter(has_text=re.compile(re.escape(label.strip()[:20])))
            expect(link.first).to_be_visible()
        for label in HOSTILE:
            page.goto(f"{writable}/dashboard/classes")
            href = page.evaluate(
                "async (label) => (await import('/static/classes.js')).classAddress(label)", label
            )
            page.goto(f"{writable}{href}")
            assert page.locator("#class-items").get_attribute("data-label") == label
            assert page.locator("#items li").count() == 2
            assert page.evaluate("document.documentElement.scrollWidth") <= 1240
            assert page.locator("img[src=x]").count() == 0


def test_without_points_and_for_nobody(open_page: OpenPage, tmp_path: Path, address: str) -> None:
    with open_page(f"{address}/dashboard/classes/nobody", refused=(404,)) as page:
        assert "No item has the label 'nobody'" in page.locator("main").inner_text()


def test_further_items_come_on_request(writable: str, bundle: ServiceBundle, open_page: OpenPage) -> None:
    with Client(writable) as client:
        vector: Any = bundle.get_vector(0)
        client.upsert([{"id": f"many-{n:03}", "label": "many", "vector": vector} for n in range(40)])
    with open_page(f"{writable}/dashboard/classes/many") as page:
        assert page.locator("#items li").count() == 24
        page.locator("#more").click()
        expect(page.locator("#items li")).to_have_count(40)
        expect(page.locator("#more")).to_have_count(0)
