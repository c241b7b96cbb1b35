"""The page that asks who somebody is: the decision is that of ``/v1/match``, and it says why."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import limen
from limen.client import Client
from service.auth.api_keys import create_key
from tests.browser.conftest import OpenPage
from tests.encoder.wrapping.networks import write_spectrogram_network
from tests.service.bundles import ServiceBundle, make_image_bundle, serve
from tests.service.routers.items.test_thumbnails import make_photo
from tests.voices import write_voices

PIECES = ("decision", "label", "id", "similarity", "score", "probability", "threshold", "margin")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that encodes images, without an operating point, with some photos."""
    folder = tmp_path_factory.mktemp("photos")
    with serve(make_image_bundle(folder / "images").path, data=folder / "data", thumbnails=48) as at:
        with Client(at) as client:
            client.upsert([{"id": f"p{n}", "label": "<b>who</b>", "input": make_photo(n)} for n in range(6)])
        yield at


def ask(page: Page) -> None:
    page.locator("#decide").click()
    page.wait_for_selector("#curl:not(:empty)")


def run_curl(page: Page, folder: Path = Path("/")) -> dict[str, Any]:
    """The answer to what the page says to type."""
    typed = page.locator("#curl").inner_text()
    done = subprocess.run(["bash", "-c", typed], cwd=folder, capture_output=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("row", [0, 77])
def test_an_item_gets_the_decision_of_match(
    address: str, open_page: OpenPage, check_page: Callable[[Page], None], row: int
) -> None:
    with Client(address) as client:
        expected = client.match([{"id": f"item-{row}"}], candidates=5).results[0]
    with open_page(f"{address}/dashboard/try?id=item-{row}") as page:
        page.wait_for_selector("#curl:not(:empty)")
        verdict = page.locator(".verdict")
        assert verdict.get_attribute("data-decision") == expected.decision
        assert verdict.get_attribute("data-label") == expected.label
        assert page.locator("#scale circle").count() == 5
        assert page.locator("#nearest li").count() == 8
        assert "similarity with the nearest item" in page.locator("#why").inner_text()
        answer = run_curl(page)["results"][0]
        assert [answer[name] for name in PIECES] == [getattr(expected, name) for name in PIECES]
        check_page(page)


def test_a_vector_gets_the_decision_of_match(
    address: str, bundle: ServiceBundle, open_page: OpenPage
) -> None:
    vector = bundle.get_vector(40)
    with Client(address) as client:
        expected = client.match([{"vector": vector}]).results[0]
    with open_page(f"{address}/dashboard/try") as page:
        page.locator("label:has(input[value=vector])").click()
        page.locator("#vector").fill("1, 2 three")
        page.locator("#decide").click()
        expect(page.locator("#said")).to_have_text('"three" is no number.')
        page.locator("#vector").fill("1 2")
        page.locator("#decide").click()
        expect(page.locator("#said")).to_have_text("A vector has 16 numbers, these are 2.")
        page.locator("#vector").fill(json.dumps(vector))
        ask(page)
        assert page.locator(".verdict").get_attribute("data-label") == expected.label
        assert run_curl(page)["results"][0]["score"] == expected.score


def test_an_answer_is_corrected_taken_back_and_the_query_enrolled(
    writable: str, bundle: ServiceBundle, open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    vector = [*bundle.get_vector(40)]
    vector[0] += 0.01
    with Client(writable) as client, open_page(f"{writable}/dashboard/try") as page:
        label = client.match([{"vector": vector}]).results[0].label
        page.locator("label:has(input[value=vector])").click()
        page.locator("#vector").fill(json.dumps(vector))
        ask(page)
        page.get_by_role("button", name="Never answer").click()
        expect(page.locator("#said")).to_contain_text(f"never answered with {label} again")
        assert client.match([{"vector": vector}]).results[0].label != label
        check_page(page)
        page.get_by_role("button", name="Take it back").click()
        expect(page.locator("#said")).to_have_text("Taken back.")
        assert client.match([{"vector": vector}]).results[0].label == label
        page.locator("#enroll-label").fill("somebody else")
        page.get_by_role("button", name="Add it to the gallery").click()
        expect(page.locator("#said")).to_contain_text("an item of somebody else now")
        assert client.match([{"vector": vector}]).results[0].label == "somebody else"


def test_what_is_refused_is_said(address: str, open_page: OpenPage) -> None:
    with open_page(f"{address}/dashboard/try?id=nobody", refused=(422,)) as page:
        expect(page.locator("#said")).to_contain_text("no item has the id 'nobody'")


@pytest.mark.parametrize("width", [1240, 390])
def test_a_picture_is_asked_about_and_what_is_near_is_seen(
    images: str, open_page: OpenPage, check_page: Callable[[Page], None], tmp_path: Path, width: int
) -> None:
    (tmp_path / "it's a photo.jpg").write_bytes(base64.b64decode(make_photo(2).partition(",")[2]))
    with open_page(f"{images}/dashboard/try", width=width) as page:
        page.set_input_files("#file", tmp_path / "it's a photo.jpg")
        page.wait_for_selector("#curl:not(:empty)")
        first = page.locator("#nearest li").first
        assert first.get_attribute("data-id") == "p2"
        assert "<b>who</b>" in first.inner_text()
        expect(first.locator("img")).to_have_js_property("naturalWidth", 48)
        expect(page.locator(".verdict")).to_be_hidden()
        assert "No operating point decides 1:N" in page.locator(".reason").inner_text()
        assert run_curl(page, tmp_path)["type"].endswith("no-operating-point")
        check_page(page)


def test_with_keys_the_curl_takes_one(
    bundle: ServiceBundle, open_page: OpenPage, browser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "me", "read")
    with serve(bundle.path, api_keys_file=file) as at:
        context = browser.new_context()
        with open_page(f"{at}/dashboard/try?id=item-1", context=context) as page:
            page.locator("input[type=password]").fill(key)
            page.locator("button[type=submit]").last.click()
            page.wait_for_selector("#curl:not(:empty)")
            typed = page.locator("#curl").inner_text()
            assert "Bearer $LIMEN_KEY" in typed
            assert key not in page.content()
            assert shlex.split(typed)[0] == "curl"
            done = subprocess.run(
                ["bash", "-c", typed],
                env={**os.environ, "LIMEN_KEY": key},
                capture_output=True,
                check=True,
                timeout=60,
            )
            assert json.loads(done.stdout)["results"][0]["label"] == "class-0"
        context.close()


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A service that encodes recordings, with some of planted speakers; and their folder."""
    folder = tmp_path_factory.mktemp("voices")
    recordings = write_voices(folder / "data", speakers=3, recordings=2, seconds=1.2)
    write_spectrogram_network(folder / "net.onnx")
    keys = {"kind": "audio", "mels": 8, "piece": 50, "mean": -6.0}
    limen.wrap(folder / "net.onnx", recordings, folder / "bundle", preprocessing=keys, thumbnails=48)
    with serve(folder / "bundle") as at:
        yield at, recordings


def test_a_recording_is_asked_about_and_heard(
    voices: tuple[str, Path], open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    address, recordings = voices
    with open_page(f"{address}/dashboard/try") as page:
        page.locator("#decide").click()
        expect(page.locator("#said")).to_have_text("Choose a recording first.")
        page.set_input_files("#file", recordings / "s001" / "1.flac")
        page.wait_for_selector("#curl:not(:empty)")
        first = page.locator("#nearest li").first
        assert first.get_attribute("data-id") == "s001/1.flac"
        expect(first.locator("img")).to_have_js_property("naturalWidth", 48)
        expect(page.locator("audio")).to_have_js_property("error", None)
        page.wait_for_function("document.querySelector('audio').duration > 0.9")
        hits = run_curl(page, recordings / "s001")
        assert hits.get("results") or hits["type"].endswith("no-operating-point")
        check_page(page)
