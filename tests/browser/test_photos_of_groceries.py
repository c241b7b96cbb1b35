"""Classes and try-it with real photos: the Grocery Store data set, through an encoder anyone can compute."""

from __future__ import annotations

import base64
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import GallerySize, Target
from api_schemas.preprocessing import ImageInput
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_encoder
from encoder import Encoder
from encoder.thumbnails import make_thumbnail
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.evaluate import evaluate_embeddings
from index.bundle import write_bundle
from limen.client import Client
from tests.browser.conftest import OpenPage
from tests.conftest import absent
from tests.encoder.encoders import write_linear_encoder
from tests.service.bundles import serve

EACH, SIDE = 8, 72
RULE = ImageInput(mode="RGB", height=12, width=12, mean=[0.5] * 3, std=[0.25] * 3)


class Shop(NamedTuple):
    """A service of photos, and photos that it has not seen."""

    address: str
    unseen: list[bytes]


@pytest.fixture(scope="module")
def shop(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Eight photos of each of 81 products, with thumbnails; half of the products prove the thresholds."""
    archive = datasets / "grocery_store" / "images_88px.zip"
    if not archive.is_file():
        absent(str(archive))
    folder = tmp_path_factory.mktemp("shop")
    with zipfile.ZipFile(archive) as photos:
        names: dict[str, list[str]] = defaultdict(list)
        for name in photos.namelist():
            if name.startswith("train/"):
                names[name.rpartition("/")[0].removeprefix("train/")].append(name)
        chosen = [(label, name) for label, of_class in names.items() for name in of_class[:EACH]]
        contents = [photos.read(name) for _, name in chosen]
        tests = [name for name in photos.namelist() if name.startswith("test/")][::400]
        unseen = [photos.read(name) for name in tests[:4]]
    write_linear_encoder(folder, RULE, dim=48)
    encoder = Encoder.open(folder)
    model_hash = hash_encoder(folder / "encoder.onnx", folder / "preprocessing.json")
    items = EmbeddingSet.from_arrays(
        encoder.encode(contents), [label for label, _ in chosen], [name for _, name in chosen]
    )
    halves = [items.select_classes(items.classes[start::2]) for start in (0, 1)]
    size = GallerySize(items=len(items), classes=len(items.classes))
    targets = {
        "verify": Target(kind="far", value=0.05),
        "match": Target(kind="fpir", value=0.3, gallery=size),
    }
    points = {
        endpoint: calibrate_threshold(
            CalibrationSources(halves[0], halves[1]), target, name=endpoint, model_hash=model_hash
        ).point
        for endpoint, target in targets.items()
    }
    write_bundle(
        folder / "bundle",
        name="groceries",
        items=items,
        model_hash=model_hash,
        encoder_folder=folder,
        index_config=IndexConfig(),
        report=evaluate_embeddings(halves[1], model_hash=model_hash, split="test"),
        operating_points=list(points.values()),
        active={endpoint: point.id for endpoint, point in points.items()},
        thumbnails=[make_thumbnail(encoder.preprocessing, content, SIDE) for content in contents],
    )
    with serve(folder / "bundle") as address:
        yield Shop(address, unseen)


def test_the_worst_product_is_seen_with_its_hardest_pairs(
    shop: Shop, open_page: OpenPage, check_page: Callable[[Page], None]
) -> None:
    with Client(shop.address) as client:
        worst = client.classes().classes[0]
        detail = client.describe_class(worst.label)
    with open_page(f"{shop.address}/dashboard/classes") as page:
        page.wait_for_selector("body[data-mapped]")
        page.locator("#rows a").first.click()
        page.wait_for_selector("#impostor li:nth-child(10)")
        assert page.locator("h1").inner_text() == worst.label
        assert worst.label.count("/"), "a label with slashes, as folders give them"
        for kind, pairs in (("genuine", detail.hardest_genuine), ("impostor", detail.hardest_impostor)):
            pictures = page.locator(f"#{kind} img.picture")
            assert pictures.count() == 20
            titles = pictures.evaluate_all("(all) => all.map((img) => img.title)")
            assert titles == [end for pair in pairs for end in (pair.a, pair.b)]
            for number in range(20):
                pictures.nth(number).scroll_into_view_if_needed()
                expect(pictures.nth(number)).to_have_js_property("complete", True)
            sides = pictures.evaluate_all(
                "(all) => all.map((i) => Math.max(i.naturalWidth, i.naturalHeight))"
            )
            assert set(sides) == {SIDE}
        check_page(page)
        page.locator("section[aria-label=Lookalikes] a").first.click()
        page.wait_for_selector("#impostor")
        assert page.locator("h1").inner_text() == detail.lookalikes[0].label


def test_a_photo_gets_the_decision_of_match(shop: Shop, open_page: OpenPage, tmp_path: Path) -> None:
    with Client(shop.address) as client, open_page(f"{shop.address}/dashboard/try") as page:
        for number, content in enumerate(shop.unseen):
            uri = "data:image/jpeg;base64," + base64.b64encode(content).decode()
            expected = client.match([{"input": uri}], candidates=5).results[0]
            photo = tmp_path / f"{number}.jpg"
            photo.write_bytes(content)
            page.set_input_files("#file", photo)
            expect(page.locator("#curl")).to_contain_text(photo.name)
            verdict = page.locator(".verdict")
            assert verdict.get_attribute("data-decision") == expected.decision
            assert verdict.get_attribute("data-label") == expected.label
            assert (
                f"score {np.format_float_positional(expected.score or 0, 4, fractional=False, trim='-')}"
                in (page.locator("#about").inner_text())
            )
            expect(page.locator("#nearest li img").first).to_have_js_property("naturalWidth", SIDE)
