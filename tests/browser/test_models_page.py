"""The page of models: versions with their figures, a comparison with its flips, a switch and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limen.client import Client
from tests.service.bundles import make_bundle, serve


def test_versions_are_loaded_compared_switched_and_rolled_back(open_page: Any, tmp_path: Path) -> None:
    folder = tmp_path / "side-by-side"
    one = make_bundle(folder / "one")
    make_bundle(folder / "two", model="others")
    with (
        serve(one.path, bundles=folder, data=tmp_path / "data") as at,
        Client(at) as client,
        open_page(f"{at}/dashboard/models") as page,
    ):
        page.wait_for_selector("body[data-ready]")
        row = page.locator("tr[data-version=two]")
        assert row.locator(".badge").inner_text() == "available"
        figures = client.models().models[1].figures
        assert figures is not None
        assert f"{100 * (figures.recall_at_1 or 0):.3g} %" in row.inner_text()
        assert page.locator("#errors .main-svg").count() > 0, "two versions make a history"
        row.locator(".load").click()
        page.locator("tr[data-version=two][data-state=loaded]").wait_for()
        page.wait_for_selector("body[data-ready]")
        page.locator("tr[data-version=two] .compare").click()
        page.locator("#comparison").wait_for()
        assert page.locator("#comparison h2").inner_text() == "two against the active model"
        assert "gets 0 wrong that the active model decides rightly" in page.locator("#flips").inner_text()
        assert page.locator("#differences tbody tr").count() == 6
        page.locator("tr[data-version=two] .activate").click()
        page.locator("#back", has_text="Roll back to one").wait_for()
        assert client.info().model_hash == client.models().models[1].model_hash
        page.wait_for_selector("body[data-ready]")
        page.click("#back")
        page.locator("#back", has_text="Roll back to two").wait_for()
        assert client.info().model_hash == client.models().models[0].model_hash


def test_without_a_data_folder_nothing_can_be_switched(open_page: Any, address: str) -> None:
    with open_page(f"{address}/dashboard/models") as page:
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#versions tbody tr").count() == 1
        assert "LIMEN_BUNDLES" in page.locator(".caption").first.inner_text()
        assert page.locator(".activate").count() == 0
