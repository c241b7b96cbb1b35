"""The pages of unknowns and of review in a browser: a person groups, names, confirms, corrects and undoes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from limen.client import Client
from tests.browser.conftest import OpenPage, find_barriers
from tests.service.bundles import ServiceBundle, make_image_bundle, serve
from tests.service.routers.test_unknowns import ask, make_strangers
from tests.service.unknowns.morning import (
    build_morning,
    count_outcome,
    read_clinc,
    send_queries,
    work_through,
)

expect.set_options(timeout=120_000)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def pool(bundle: ServiceBundle, tmp_path: Path) -> Iterator[tuple[str, Client]]:
    """A service with four groups of strangers, and some matches."""
    with serve(bundle.path, data=tmp_path, keep_unknowns="all") as at, Client(at) as client:
        rows, names = make_strangers(40, 4, 6)
        for row, name in zip(rows, names, strict=True):
            ask(client, row[None], truth=name)
        ask(client, bundle.gallery.vectors[:6])
        yield at, client


def wait_loaded(page: Page, times: int) -> None:
    expect(page.locator("#pool")).to_have_attribute("data-loaded", str(times))


@pytest.mark.parametrize(("width", "scheme"), [(1240, "light"), (390, "dark")])
def test_a_group_is_named_confirmed_split_dropped_and_all_is_undone(
    pool: tuple[str, Client], open_page: OpenPage, width: int, scheme: str
) -> None:
    at, client = pool
    with open_page(f"{at}/dashboard/unknowns", width, scheme) as page:
        wait_loaded(page, 1)
        page.get_by_role("button", name="Group them").click()
        expect(page.locator("[data-group]")).to_have_count(4)
        loaded = int(page.locator("#pool").get_attribute("data-loaded") or 0)

        first = page.locator("[data-group]").first
        first.locator(".pile").click()
        expect(first.locator(".members label")).to_have_count(6)
        for number in (0, 1):
            first.locator(".members input[type=checkbox]").nth(number).check()
        first.get_by_role("button", name="Split off").click()
        wait_loaded(page, loaded + 1)
        expect(page.locator("[data-group]")).to_have_count(5)

        small = page.locator("[data-group]").last
        small.locator("input[type=text]").fill(HOSTILE)
        small.locator("input[type=text]").press("Enter")
        wait_loaded(page, loaded + 2)
        expect(page.locator("#offered h2")).to_contain_text(f"4 more are a match of {HOSTILE}")
        page.get_by_role("button", name="Confirm all 4").click()
        wait_loaded(page, loaded + 3)
        assert {entry.name for entry in client.unknowns(status="enrolled").unknowns} == {HOSTILE}
        assert len(client.unknowns(status="enrolled").unknowns) == 6

        page.get_by_role("button", name="Drop this group").first.click()
        wait_loaded(page, loaded + 4)
        expect(page.locator("[data-group]")).to_have_count(2)
        assert find_barriers(page) == []
        for _ in range(4):
            before = int(page.locator("#pool").get_attribute("data-loaded") or 0)
            page.locator("#changes button").first.click()
            wait_loaded(page, before + 1)
        expect(page.locator("[data-group]")).to_have_count(4)
        assert client.unknown_groups().counts.open == 24
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_is_offered_of_several_labels_is_confirmed_at_once(
    pool: tuple[str, Client], open_page: OpenPage
) -> None:
    at, client = pool
    client.wait(client.group_unknowns())
    groups = client.unknown_groups(members=2).groups[:2]
    for number, group in enumerate(groups):
        client.enroll_unknowns(f"new {number}", ids=[member.id for member in group.members])
    with open_page(f"{at}/dashboard/unknowns") as page:
        wait_loaded(page, 1)
        expect(page.locator("#offered .offer")).to_have_count(2)
        page.get_by_role("button", name="Confirm all of them").click()
        wait_loaded(page, 2)
        expect(page.locator("#said")).to_contain_text("8 are items of 2 labels now")
        names = [entry.name for entry in client.unknowns(status="enrolled").unknowns]
        assert sorted(names) == ["new 0"] * 6 + ["new 1"] * 6
    for change in client.unknown_groups().changes[:4]:
        client.undo_unknowns(change.change)
    assert client.unknown_groups().counts.open == 24


def test_was_this_one_here_before(pool: tuple[str, Client], open_page: OpenPage) -> None:
    at, client = pool
    vector = client.unknown(client.unknowns(status="open", decision="unknown").unknowns[0].id).vector
    with open_page(f"{at}/dashboard/unknowns") as page:
        wait_loaded(page, 1)
        page.get_by_label("Id of an item").fill(str(vector))
        page.get_by_role("button", name="Look", exact=True).click()
        expect(page.locator("#found .same")).to_have_count(6)
        expect(page.locator("#said")).to_contain_text("6 times")


def test_decisions_are_judged_blind_with_one_key_each(pool: tuple[str, Client], open_page: OpenPage) -> None:
    at, client = pool
    queue = client.review(limit=100).reviews
    assert len(queue) == 30
    assert not {"score", "decision", "threshold"} & set(queue[0].model_dump())
    with open_page(f"{at}/dashboard/review") as page:
        shown = page.locator("#review")
        expect(shown).to_have_attribute("data-shown", "1")
        score = client.unknown(queue[0].id).score
        assert score is not None
        assert f"{score:.3f}" not in page.content()
        for number, (key, verdict) in enumerate(
            [("s", "the same"), ("d", "different"), ("k", None), ("n", f"never {queue[3].label}")], 2
        ):
            page.keyboard.press(key)
            expect(shown).to_have_attribute("data-shown", str(number))
            if verdict is not None:
                expect(page.locator("#revealed")).to_contain_text(f"You said: {verdict}")
        total = client.feedback_page()
        assert (total.total, total.corrections) == (3, 1)
        expect(page.locator("#corrections li")).to_contain_text(f"is never {queue[3].label}")
        page.keyboard.press("u")
        expect(shown).to_have_attribute("data-shown", "6")
        assert client.feedback_page().total == 2
        page.keyboard.press("s")
        expect(shown).to_have_attribute("data-shown", "7")
        page.keyboard.press("e")
        expect(page.locator("#said")).to_contain_text(f"It is an item of {queue[3].label} now")
        (enrolled,) = client.unknowns(status="enrolled").unknowns
        assert (enrolled.id, enrolled.name) == (queue[3].id, queue[3].label)
        assert find_barriers(page) == []
    disputed = [entry for entry in client.review().reviews if entry.kind == "disputed"]
    wrong = {
        entry.id: (entry.decision == "match") != (entry.verdict == "same")
        for entry in client.unknowns().unknowns
        if entry.verdict is not None and entry.status == "open"
    }
    assert {entry.id for entry in disputed} == {name for name, is_wrong in wrong.items() if is_wrong}


def test_pictures_of_queries_are_shown_and_become_those_of_items(tmp_path: Path, open_page: OpenPage) -> None:
    bundle = make_image_bundle(tmp_path / "images")
    with (
        serve(bundle.path, data=tmp_path / "data", keep_unknowns="all", thumbnails=32) as at,
        Client(at) as client,
    ):
        point = bundle.points.get("match")
        if point is None:
            client.add_operating_point(make_high_point(bundle))
            client.activate_operating_point(client.operating_points().operating_points[0].id)
        pictures = [encode(seed) for seed in (1, 2)]
        client.match([{"input": picture} for picture in pictures])
        kept = client.unknowns().unknowns
        assert [entry.has_thumbnail for entry in kept] == [True, True]
        thumbnail = client.unknown_thumbnail(kept[0].id)
        assert max(Image.open(io.BytesIO(thumbnail)).size) <= 32
        done = client.enroll_unknowns("pictured", ids=[kept[0].id])
        assert client.thumbnail(done.items[0]) == thumbnail
        with open_page(f"{at}/dashboard/unknowns") as page:
            wait_loaded(page, 1)
            picture = page.locator("#alone img.picture")
            expect(picture).to_have_count(1)
            picture.scroll_into_view_if_needed()
            expect(picture).to_have_js_property("complete", True)
            assert picture.evaluate("image => image.naturalWidth") > 0
        client.undo_unknowns(done.change)
        assert client.unknown(kept[0].id).has_thumbnail


def encode(seed: int) -> str:
    pixels = np.random.default_rng(100 + seed).integers(0, 256, (40, 60), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def make_high_point(bundle: ServiceBundle) -> Any:
    """A 1:N point that accepts nothing but copies, of the bundle's model."""
    from api_schemas.manifest import MANIFEST_FILE, Manifest
    from tests.service.bundles import calibrate_points

    model_hash = Manifest.load(bundle.path / MANIFEST_FILE).model_hash
    return calibrate_points()["match"].with_changes(model_hash=model_hash, threshold=0.99999)


def test_a_read_only_service_says_what_is_missing(address: str, open_page: OpenPage) -> None:
    for name in ("unknowns", "review"):
        with open_page(f"{address}/dashboard/{name}") as page:
            assert "read-only" in page.locator(".story").inner_text()
            assert find_barriers(page) == []


@pytest.mark.full
def test_thirty_clicks_name_most_of_200_queries(datasets: Path, tmp_path: Path, open_page: OpenPage) -> None:
    morning = build_morning(tmp_path / "clinc", *read_clinc(datasets))
    with serve(morning.bundle, data=tmp_path / "data", keep_unknowns="unknown") as at, Client(at) as client:
        send_queries(client, morning)
        with open_page(f"{at}/dashboard/unknowns") as page:
            wait_loaded(page, 1)

            def press_and_wait(button: Any) -> None:
                before = int(page.locator("#pool").get_attribute("data-loaded") or 0)
                button.click()
                wait_loaded(page, before + 1)

            press_and_wait(page.get_by_role("button", name="Group them"))

            def name(group: str, label: str) -> list[Any]:
                form = page.locator(f"[data-group='{group}'] form")
                form.locator("input[type=text]").fill(label)
                press_and_wait(form.get_by_role("button", name="Name"))
                offered = page.locator(f"#offered [data-label='{label}'] .picture")
                return [client.unknown(one) for one in list_offered(client, label)] if offered.count() else []

            def confirm(label: str) -> None:
                press_and_wait(page.locator(f"#offered [data-label='{label}']").get_by_text("Confirm"))

            clicks = work_through(client, name, confirm)
        outcome = count_outcome(client, clicks)
    assert outcome.clicks <= 30
    assert outcome.right >= 160
    assert outcome.wrong <= 4


def list_offered(client: Client, label: str) -> list[str]:
    return [
        one.id for entry in client.unknown_groups().offered if entry.label == label for one in entry.unknowns
    ]
