"""The page of labels to look at, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from limen.client import Client
from tests.browser.conftest import OpenPage
from tests.service.bundles import ServiceBundle, serve

HOSTILE = "<img src=x onerror=alert(1)>"


def test_audit_is_started_and_shown(
    bundle: ServiceBundle, open_page: OpenPage, check_page: Callable[[Page], None], tmp_path: Path
) -> None:
    with serve(bundle.path, data=tmp_path) as at:
        with Client(at, retries=0) as client:
            client.upsert(
                [
                    {"id": "item-3", "label": HOSTILE, "vector": bundle.get_vector(3)},
                    {"id": "right to left \u202e", "label": "x" * 500, "vector": bundle.get_vector(70)},
                ]
            )
        with open_page(f"{at}/dashboard/labels") as page:
            assert "not audited yet" in page.inner_text("#story")
            page.click("#audit")
            page.wait_for_selector(".finding")
            assert "nearer to another label" in page.inner_text("#story")
            first = page.locator(".finding").first
            assert "of its own label" in first.inner_text() or "same vector" in first.inner_text()
            assert page.locator(".finding b", has_text=HOSTILE).count() >= 1
            assert page.locator("img[src=x]").count() == 0
            with page.expect_download() as download:
                page.click("#export")
            assert "item-3" in Path(download.value.path()).read_text()
            check_page(page)
        with open_page(f"{at}/dashboard/labels", width=390, scheme="dark") as page:
            page.wait_for_selector(".finding")
            check_page(page)
