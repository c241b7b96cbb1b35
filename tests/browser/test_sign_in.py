"""Signing in with a key in the browser: wrong keys, the session, its end, and what it may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.auth.api_keys import create_key, revoke_keys
from tests.service.bundles import ServiceBundle, serve


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def guarded(bundle: ServiceBundle, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    create_key(keys, "first", "read")
    with serve(bundle.path, data=tmp_path_factory.mktemp("data") / "data", api_keys_file=keys) as at:
        yield at


def test_a_wrong_key_is_refused_and_a_right_one_leads_to_the_page(
    open_page: Any, browser: Any, check_page: Any, guarded: str, keys: Path
) -> None:
    secret = create_key(keys, "admin", "admin")
    context = browser.new_context()
    with open_page(f"{guarded}/dashboard/reports?source=gallery", context=context, refused=(401,)) as page:
        assert page.url.startswith(f"{guarded}/dashboard/sign-in?next=")
        check_page(page)
        page.fill("#key", "limen_wrong")
        page.click("button.primary")
        page.locator("#problem").wait_for()
        assert "no key of this service" in page.locator("#problem").inner_text()
        assert "limen_wrong" not in page.content()
        page.fill("#key", secret)
        page.click("button.primary")
        page.wait_for_url(f"{guarded}/dashboard/reports?source=gallery")
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert secret not in cookie["value"]
        assert page.evaluate("document.cookie") == ""
        page.click("#recompute")
        page.locator("#beside").wait_for()
        assert page.locator(".who").inner_text() == "admin"
        page.click(".sign-out button")
        page.wait_for_url(f"{guarded}/dashboard/sign-in")
        page.goto(f"{guarded}/dashboard")
        assert page.url.startswith(f"{guarded}/dashboard/sign-in")
    context.close()


def test_a_revoked_key_ends_its_sessions(open_page: Any, browser: Any, guarded: str, keys: Path) -> None:
    secret = create_key(keys, "passing", "read")
    context = browser.new_context()
    with open_page(f"{guarded}/dashboard", context=context) as page:
        page.fill("#key", secret)
        page.click("button.primary")
        page.wait_for_selector("body[data-drawn]")
        revoke_keys(keys, "passing")
        page.goto(f"{guarded}/dashboard/models")
        assert page.url.startswith(f"{guarded}/dashboard/sign-in")
    context.close()
