"""The page of reports: each source, measured again with its progress, and saved as files."""

from __future__ import annotations

from typing import Any

import httpx


def test_the_gallery_is_measured_from_the_page(open_page: Any, writable: str) -> None:
    with open_page(f"{writable}/dashboard/reports?source=gallery") as page:
        page.wait_for_selector("body[data-ready]")
        assert "Not measured yet" in page.locator(".notice").inner_text()
        page.click("#recompute")
        page.locator("#beside").wait_for()
        assert "the hold-out's interval" in page.locator("#beside").inner_text()
        page.wait_for_selector("body[data-drawn]")
        assert page.locator("#history .main-svg").count() > 0
        report = httpx.get(f"{writable}/v1/reports/consistency?source=gallery").json()
        assert page.locator("time").get_attribute("datetime") == report["created_at"].replace("Z", "+00:00")
        assert page.locator("#worst tbody tr").count() == 20


def test_a_report_is_saved_as_a_file(open_page: Any, address: str) -> None:
    with open_page(f"{address}/dashboard/reports") as page:
        page.wait_for_selector("body[data-drawn]")
        assert page.locator("#recompute").count() == 0, "the hold-out's report belongs to the bundle"
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV of the classes").click()
        name = download.value.suggested_filename
        assert name.startswith("limen-holdout-")
        assert name.endswith(".csv")
