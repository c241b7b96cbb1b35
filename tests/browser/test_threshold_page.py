"""The slider in a browser: its figures are the API's, and a threshold that is chosen there decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from limen.client import Client
from service.auth.api_keys import create_key
from tests.service.bundles import ServiceBundle, make_bundle, serve


def read_percent(text: str) -> float:
    return float(text.removesuffix("%").strip().removeprefix("<").strip()) / 100


@pytest.mark.parametrize("endpoint", ["match", "verify"])
def test_the_figures_are_the_apis_wherever_the_slider_stands(
    open_page: Any, address: str, endpoint: str
) -> None:
    curve = httpx.get(f"{address}/v1/operating-points/tradeoff?endpoint={endpoint}").json()
    with open_page(f"{address}/dashboard/threshold?endpoint={endpoint}") as page:
        page.wait_for_selector("body[data-drawn]")
        slider = page.locator("#slider")
        assert int(slider.input_value()) == curve["points"][0]["index"], "it begins at the active point"
        for keys in (0, 7, 25):
            for _ in range(keys):
                slider.press("ArrowRight")
            at = int(slider.input_value())
            assert float(page.locator("#value").inner_text()) == pytest.approx(
                curve["thresholds"][at], rel=1e-4
            )
            for rate in ("far", "frr", "fpir", "fnir"):
                shown = page.locator(f"[data-rate={rate}] .figure").first.inner_text()
                assert read_percent(shown) == pytest.approx(curve[rate][at], rel=0.01, abs=1e-5), rate
            cost = float(page.locator("[data-rate=cost] .figure").inner_text())
            assert cost == pytest.approx(curve["cost"][at], rel=0.01)
            for row in curve["classes_over"]:
                cell = page.locator(f"#classes [data-rate={row['rate']}][data-level='{row['level']}']")
                if cell.count():
                    assert cell.inner_text() == f"{row['classes'][at]} of {row['n_classes']}"
            group = curve["groups"][0]
            first = page.locator("#groups tbody tr").first
            assert first.locator("td").first.inner_text() == f"{group['column']} = {group['value']}"
        assert slider.get_attribute("aria-valuetext") == f"threshold {page.locator('#value').inner_text()}"


def test_the_cost_moves_with_what_a_mistake_costs(open_page: Any, address: str) -> None:
    asked = httpx.get(
        f"{address}/v1/operating-points/tradeoff", params={"unknown_share": 0.9, "false_match_cost": 200}
    ).json()
    with open_page(f"{address}/dashboard/threshold") as page:
        page.wait_for_selector("body[data-drawn]")
        page.fill("#share", "90")
        page.fill("#weight", "200")
        page.click("#cheapest")
        at = int(page.locator("#slider").input_value())
        assert asked["cost"][at] == min(asked["cost"])


def test_a_threshold_that_is_chosen_decides_the_next_match(
    open_page: Any, bundle: ServiceBundle, tmp_path: Path
) -> None:
    with serve(bundle.path, data=tmp_path / "data") as at, Client(at) as client:
        assert client.match([{"id": "item-0"}]).results[0].decision == "match"
        with open_page(f"{at}/dashboard/threshold") as page:
            page.wait_for_selector("body[data-drawn]")
            page.locator("#slider").press("End")
            chosen = float(page.locator("#value").inner_text())
            page.fill("#point-name", "nobody <b>passes</b>")
            page.click("#activate")
            page.wait_for_selector("#said:not([hidden])")
            assert page.locator("#said").inner_text().startswith("nobody <b>passes</b> decides from now on")
            assert page.locator("#standing").inner_text().startswith("nobody <b>passes</b>")
            result = client.match([{"id": "item-0"}]).results[0]
            assert result.decision == "unknown"
            assert result.threshold == pytest.approx(chosen, rel=1e-4)
            page.locator(".rung", has_text="match").first.click()
            page.locator("#standing button").click()
            page.locator("#said", has_text="match decides from now on").wait_for()
            assert client.match([{"id": "item-0"}]).results[0].decision == "match", "the way back"


def test_a_key_that_may_not_choose_is_told_which_one_may(
    open_page: Any, bundle: ServiceBundle, browser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    with serve(bundle.path, data=tmp_path / "data", api_keys_file=file) as at:
        context = browser.new_context()
        with open_page(f"{at}/dashboard/threshold", context=context) as page:
            page.fill("#key", secret)
            page.click("button.primary")
            page.wait_for_selector("body[data-drawn]")
            assert page.url == f"{at}/dashboard/threshold"
            for button in ("#activate", "#keep"):
                assert page.locator(button).is_disabled()
            assert "a key of the scope admin; yours is read" in page.locator("#activate-why").inner_text()
        context.close()


def test_a_bundle_without_curves_says_how_to_get_them(open_page: Any, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "pointless", points=False)
    with serve(bundle.path) as at, open_page(f"{at}/dashboard/threshold") as page:
        assert "limen export" in page.locator(".reason").inner_text()
