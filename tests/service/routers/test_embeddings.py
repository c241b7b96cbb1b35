"""The encoder over HTTP: as OpenAI's client asks for it, and as queries of search."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from encoder import Encoder
from limen.client import Client, ServiceError
from tests.encoder.encoders import encode_data_uri, encode_png
from tests.service.bundles import make_grey_image, make_image_bundle, serve


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_image_bundle(tmp_path_factory.mktemp("bundles") / "images")


@pytest.fixture(scope="module")
def image_address(images: Any) -> Iterator[str]:
    with serve(images.path, max_image_pixels=1_000_000) as at:
        yield at


@pytest.fixture(scope="module")
def image_client(image_address: str) -> Iterator[Client]:
    with Client(image_address, retries=0) as client:
        yield client


def build_uri(seed: int) -> str:
    return encode_data_uri(encode_png(make_grey_image(seed)))


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_the_official_openai_client_works_unchanged(image_address: str, images: Any, encoding: Any) -> None:
    expected = Encoder.open(images.path).encode([make_grey_image(0), make_grey_image(1)])
    given = {} if encoding is None else {"encoding_format": encoding}
    with openai.OpenAI(base_url=f"{image_address}/v1", api_key="unused") as client:
        (model,) = client.models.list().data
        assert client.models.retrieve(model.id) == model
        answer = client.embeddings.create(input=[build_uri(0), build_uri(1)], model=model.id, **given)
        alone = client.embeddings.create(input=build_uri(1), model="clusters", **given)
    assert [entry.index for entry in answer.data] == [0, 1]
    rows = [
        np.frombuffer(base64.b64decode(entry.embedding), "<f4")
        if isinstance(entry.embedding, str)
        else np.float32(entry.embedding)
        for entry in answer.data
    ]
    np.testing.assert_array_equal(np.stack(rows), expected)
    assert alone.model == "clusters"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, alone.usage.total_tokens) == (2, 2, 1)


def test_openais_client_shows_what_is_wrong(image_address: str) -> None:
    with openai.OpenAI(base_url=f"{image_address}/v1", api_key="unused", max_retries=0) as client:
        with pytest.raises(
            openai.NotFoundError, match=r"no loaded model is called 'faces-9'; loaded are images\."
        ) as no:
            client.embeddings.create(input=build_uri(0), model="faces-9")
        assert (no.value.code, no.value.param, no.value.type) == ("unknown-model", "model", "unknown-model")
        with pytest.raises(openai.NotFoundError, match="loaded are images"):
            client.models.retrieve("faces-9")
        with pytest.raises(openai.UnprocessableEntityError, match=r"input\.1: this is not a base64") as bad:
            client.embeddings.create(input=[build_uri(0), "%"], model="clusters")
        assert bad.value.param == "input.1"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model="x", prompt="x")


def test_null_is_the_default_as_in_openais_api(image_address: str) -> None:
    fields = {"encoding_format": None, "dimensions": None, "user": None}
    answer = httpx.post(f"{image_address}/v1/embeddings", json={"input": build_uri(0), **fields}).json()
    assert len(answer["data"][0]["embedding"]) == 16


def test_embeddings_as_raw_rows(image_client: Client, images: Any) -> None:
    rows = image_client.embeddings([build_uri(seed) for seed in range(5)])
    np.testing.assert_array_equal(rows, images.gallery.vectors[:5])


def test_an_image_finds_itself(image_client: Client) -> None:
    result = image_client.search([{"input": build_uri(7)}, {"id": "7"}], k=2).results
    assert result[0].hits[0].id == "7"
    assert result[0].hits[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert result[1].hits[0].id != "7"
    assert image_client.info().encoder is not None


def test_an_image_in_lab_is_one_of_colours(image_client: Client) -> None:
    white = Image.new("LAB", (6, 4), (255, 128, 128))
    rows = image_client.embeddings(
        [encode_data_uri(encode_png(white, "TIFF")), encode_data_uri(encode_png(Image.new("L", (6, 4), 255)))]
    )
    np.testing.assert_allclose(rows[0], rows[1], atol=0.05)


def test_bad_images_are_named(image_client: Client) -> None:
    turned = io.BytesIO()
    Image.new("RGB", (6, 4)).save(turned, "WEBP", exif=b"Exif\0\0MMxx")
    for bad, words in {
        encode_data_uri(turned.getvalue()): "orientation or colours cannot be read",
        encode_data_uri(encode_png(Image.new("F", (6, 4), 0.5), "TIFF")): "32-bit or signed numbers",
        encode_data_uri(encode_png(Image.new("I", (6, 4), 200), "TIFF")): "32-bit or signed numbers",
        encode_data_uri(b"junk"): "not an image",
        encode_data_uri(encode_png(Image.new("1", (10_000, 10_000)))): "pixels",
        "data:image/png;base64,%": "base64",
    }.items():
        with pytest.raises(ServiceError, match=words) as refusal:
            image_client.search([{"id": "3"}, {"input": bad}])
        assert refusal.value.problem.status == 422
        assert refusal.value.problem.errors[0].path == "queries.1.input"
        with pytest.raises(ServiceError, match=words) as refusal:
            image_client.embeddings([build_uri(1), bad])
        assert refusal.value.problem.status == 422
        assert refusal.value.problem.errors[0].path == "input.1"


@pytest.mark.parametrize(
    "body",
    [
        {"input": []},
        {"input": 3},
        {"input": [[1.0]]},
        {"input": [True]},
        {"model": "x"},
        {"input": "x", "dimensions": 3},
    ],
)
def test_bad_requests(image_address: str, body: Any) -> None:
    response = httpx.post(f"{image_address}/v1/embeddings", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"].startswith(("input", "dimensions"))


def test_model_picks_a_loaded_version(images: Any, bundle: Any, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(bundle.path, bundles / "vectors")
    with serve(images.path, bundles=bundles) as at, Client(at, retries=0) as client:
        body = {"input": [build_uri(0)], "model": "vectors"}
        early = httpx.post(f"{at}/v1/embeddings", json=body)
        assert early.json()["type"] == "/problems/unknown-model", "not loaded yet"
        assert client.wait(client.load_model("vectors")).status == "done"
        refusal = httpx.post(f"{at}/v1/embeddings", json=body)
        assert refusal.json()["type"] == "/problems/no-encoder", "the picked one has none"
        own = httpx.post(f"{at}/v1/embeddings", json=body | {"model": images.path.name})
        assert own.status_code == 200
