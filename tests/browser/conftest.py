"""A browser for the tests of pages, and what every page is held to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import absent
from tests.service.bundles import ServiceBundle, make_bundle, serve

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
OpenPage = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "clusters")


@pytest.fixture(scope="session")
def address(bundle: ServiceBundle) -> Iterator[str]:
    """A read-only service of `bundle`, without keys."""
    with serve(bundle.path) as at:
        yield at


@pytest.fixture(scope="module")
def writable(bundle: ServiceBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of `bundle` with a data folder, without keys."""
    with serve(bundle.path, data=tmp_path_factory.mktemp("data") / "data") as at:
        yield at


@pytest.fixture(scope="module")  # not longer: its event loop would run beside those of other rooms' tests
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        absent("chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> OpenPage:
    """Open a page that may have no error on its console and no request to another host.

    `with open_page(url, width=390, scheme="dark") as page`. Answers of the service
    that a test expects to be refusals are named in `refused`: the browser reports them as errors.
    """

    @contextmanager
    def opened(
        url: str,
        width: int = 1240,
        scheme: str = "light",
        *,
        context: Any = None,
        refused: tuple[int, ...] = (),
    ) -> Iterator[Page]:
        given = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
        page = browser.new_page(**given) if context is None else context.new_page()
        page.set_default_timeout(120_000)
        troubles: list[str] = []
        page.on(
            "console", lambda line: troubles.append(line.text) if line.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.goto(url)
        yield page
        host = url.split("/")[2]
        own = (f"http://{host}/", "data:", f"blob:http://{host}/")
        assert [url for url in urls if not url.startswith(own)] == []
        expected = tuple(f"the server responded with a status of {status}" for status in refused)
        assert [text for text in troubles if not any(part in text for part in expected)] == []
        page.close()

    return opened


def find_barriers(page: Page) -> list[str]:
    """What axe finds that keeps somebody from using the page: its serious and critical findings."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{entry['id']}: {node['html'][:200]} ({node.get('failureSummary', '')[:200]})"
        for entry in found
        if entry["impact"] in {"serious", "critical"}
        for node in entry["nodes"]
    ]


@pytest.fixture
def check_page() -> Callable[[Page], None]:
    """Assert that a page fits its window and has no serious finding of axe."""

    def check(page: Page) -> None:
        width = page.viewport_size["width"] if page.viewport_size else 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        assert find_barriers(page) == []

    return check
