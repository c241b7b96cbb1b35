"""Thumbnails over HTTP: kept on request, never larger than asked, erased with the item."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from limen.client import Client, ServiceError
from tests.service.bundles import ServiceBundle, make_image_bundle, serve

SIDE = 48


def make_photo(seed: int = 0, width: int = 300, height: int = 200) -> str:
    """A JPEG with a place in its EXIF, as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "at home"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    assert b"at home" in file.getvalue()
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    return make_image_bundle(tmp_path_factory.mktemp("bundles") / "images")


@pytest.fixture
def keeping(images: ServiceBundle, tmp_path: Path) -> Iterator[str]:
    """A service that keeps thumbnails."""
    with serve(images.path, data=tmp_path / "data", thumbnails=SIDE) as at:
        yield at


def get(at: str, item_id: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{at}/v1/items/{item_id}/thumbnail", headers=headers)


def test_an_upsert_with_an_image_keeps_a_small_picture_of_it(keeping: str) -> None:
    with Client(keeping) as client:
        assert client.info().thumbnails == SIDE
        client.upsert([{"id": "photo", "label": "x", "input": make_photo()}])
        answer = get(keeping, "photo")
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["cache-control"] == "private, no-cache"
        assert Image.open(io.BytesIO(answer.content)).size == (48, 32)
        assert len(answer.content) <= SIDE * SIDE
        assert b"at home" not in answer.content
        assert client.thumbnail("photo") == answer.content
        again = get(keeping, "photo", **{"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        client.upsert([{"id": "photo", "label": "x", "input": make_photo(1)}])
        other = get(keeping, "photo", **{"If-None-Match": answer.headers["etag"]})
        assert other.status_code == 200
        assert other.content != answer.content


def test_it_is_erased_with_its_item_and_with_an_input_that_it_does_not_show(
    keeping: str, images: ServiceBundle, tmp_path: Path
) -> None:
    with Client(keeping, retries=0) as client:
        client.upsert([{"id": f"p{row}", "label": "x", "input": make_photo(row)} for row in range(3)])
        kept = client.thumbnail("p0")
        client.delete("p0")
        client.upsert([{"id": "p1", "label": "x", "vector": images.get_vector(3)}])
        with pytest.raises(ServiceError, match="No item has the id 'p0'"):
            client.thumbnail("p0")
        with pytest.raises(ServiceError, match=r"No thumbnail is kept of the item 'p1'.*LIMEN_THUMBNAILS=96"):
            client.thumbnail("p1")
        client.upsert([{"id": "p0", "label": "x", "vector": images.get_vector(4)}])
        assert get(keeping, "p0").status_code == 404
        assert client.thumbnail("p2")
    (store,) = (tmp_path / "data").glob("models/*/limen.sqlite")
    assert kept not in store.read_bytes()


def test_nothing_is_kept_unless_asked_for(images: ServiceBundle, tmp_path: Path) -> None:
    with serve(images.path, data=tmp_path / "data") as at, Client(at, retries=0) as client:
        assert client.info().thumbnails is None
        client.upsert([{"id": "photo", "label": "x", "input": make_photo()}])
        assert get(at, "photo").status_code == 404


def test_it_outlives_a_restart_without_the_setting(images: ServiceBundle, tmp_path: Path) -> None:
    with serve(images.path, data=tmp_path / "data", thumbnails=SIDE) as at, Client(at) as client:
        client.upsert([{"id": "photo", "label": "x", "input": make_photo()}])
        kept = client.thumbnail("photo")
    with serve(images.path, data=tmp_path / "data") as at, Client(at) as client:
        assert client.thumbnail("photo") == kept


def test_any_id_has_one(keeping: str) -> None:
    ids = ["a/b", "..", "a/thumbnail", "thumbnail", "ä ?#%", "a\nb", "%2F"]
    with Client(keeping) as client:
        client.upsert([{"id": item_id, "label": "x", "input": make_photo()} for item_id in ids])
        for item_id in ids:
            assert client.thumbnail(item_id)
            assert client.item(item_id).id == item_id


def test_previews_say_what_can_be_shown(keeping: str, images: ServiceBundle) -> None:
    vector = images.get_vector(0)
    with Client(keeping) as client:
        client.upsert(
            [
                {"id": "photo", "label": "<img src=x>", "input": make_photo()},
                {"id": "note", "label": "n", "vector": vector, "metadata": {"text": "hello " * 200}},
                {
                    "id": "row",
                    "label": "r",
                    "vector": vector,
                    "metadata": {f"f{n:02}": "x" * 900 for n in range(20)},
                },
            ]
        )
        photo, row, note = client.previews(["photo", "nobody", "row", "note"]).previews
        assert (photo.id, photo.kind, photo.text, photo.label) == ("photo", "picture", None, "<img src=x>")
        assert (note.kind, note.text) == ("text", ("hello " * 200)[:500])
        assert row.kind == "metadata"
        assert {name: len(str(value)) for name, value in row.metadata.items()} == {
            f"f{n:02}": 200 for n in range(8)
        }


@pytest.mark.parametrize("ids", [[], ["a"] * 101, [7], "a"])
def test_bad_previews_are_refused(address: str, ids: Any) -> None:
    answer = httpx.post(f"{address}/v1/items/previews", json={"ids": ids})
    assert answer.status_code == 422


def test_a_bundle_of_vectors_has_none(client: Client) -> None:
    with pytest.raises(ServiceError, match="No thumbnail is kept"):
        client.thumbnail("item-1")
    assert client.previews(["item-1"]).previews[0].kind == "metadata"
