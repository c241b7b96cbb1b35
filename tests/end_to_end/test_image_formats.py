"""The bytes of a file are one image in training and over HTTP, or refused by both in the same words."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from api_schemas.config import Config
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from tests.end_to_end.test_embeddings_to_decision import run
from tests.service.bundles import serve
from tests.training.runs import EVERYTHING, load_made
from training.loop.train import train

CLASSES = 12


def draw(label: int, number: int) -> Image.Image:
    """Coloured blocks that depend on the class, and a patch on the number."""
    blocks = np.random.default_rng(label).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((30, 40), Image.Resampling.NEAREST)
    patch = np.random.default_rng([label, number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image.paste(Image.fromarray(patch), (3 + number % 15, 20))
    return image


def save(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def fade(image: Image.Image, mode: str) -> Image.Image:
    """The image with an alpha channel that rises from left to right."""
    faded = image.convert(mode)
    faded.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return faded


def make_deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)


def save_deep_colours(image: Image.Image) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""
    deep = np.asarray(image).astype(">u2") * 251
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    head = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def save_turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, progressive=True)


FORMS: dict[str, Callable[[Image.Image], bytes]] = {
    "plain.jpg": lambda image: save(image, "JPEG"),
    "grey.jpg": lambda image: save(image.convert("L"), "JPEG"),
    "cmyk.jpg": lambda image: save(image.convert("CMYK"), "JPEG"),
    "turned.jpg": save_turned,
    "mpo.jpg": lambda image: save(
        image, "MPO", save_all=True, append_images=[image.convert("L").convert("RGB")]
    ),
    "plain.png": lambda image: save(image, "PNG"),
    "palette.png": lambda image: save(image.quantize(16), "PNG"),
    "clear palette.png": lambda image: save(image.quantize(16), "PNG", transparency=3),
    "alpha.png": lambda image: save(fade(image, "RGBA"), "PNG"),
    "grey alpha.png": lambda image: save(fade(image, "LA"), "PNG"),
    "deep.png": lambda image: save(make_deep(image), "PNG"),
    "deep colours.png": save_deep_colours,
    "plain.webp": lambda image: save(image, "WEBP"),
    "alpha.webp": lambda image: save(fade(image, "RGBA"), "WEBP", lossless=True),
    "plain.gif": lambda image: save(image, "GIF"),
    "moving.gif": lambda image: save(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
    "plain.tif": lambda image: save(image, "TIFF"),
    "cmyk.tif": lambda image: save(image.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "deep.tif": lambda image: save(make_deep(image), "TIFF"),
    "pages.tif": lambda image: save(image, "TIFF", save_all=True, append_images=[image.rotate(180)]),
    "plain.bmp": lambda image: save(image, "BMP"),
    "plain.ppm": lambda image: save(image, "PPM"),
}


def write_form(name: str, label: int) -> bytes:
    return FORMS[name](draw(label, list(FORMS).index(name)))


BROKEN: dict[str, bytes] = {
    "cut.jpg": write_form("plain.jpg", 0)[:300],
    "cut.png": write_form("plain.png", 0)[:90],
    "text.png": b"no image at all",
    "empty.png": b"",
    "other.png": save(draw(0, 0), "TGA"),
    "floats.tif": save(Image.new("F", (12, 12), 0.5), "TIFF"),
    "signed.tif": save(Image.new("I", (12, 12), 200), "TIFF"),
    "large.png": save(Image.new("1", (6_000, 6_000)), "PNG"),
    "long.png": save(Image.new("1", (17_000, 2)), "PNG"),
    "turned.webp": save(Image.new("RGB", (12, 12)), "WEBP", exif=b"Exif\0\0MMxx"),
    "heavy.bmp": save(Image.new("RGB", (2_500, 2_500)), "BMP"),
}


def encode(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every class in every format."""
    folder = tmp_path_factory.mktemp("formats") / "photos"
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for name in FORMS:
            (folder / f"class{label}" / name).write_bytes(write_form(name, label))
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path) -> EmbeddingSet:
    """What a run gave its items, from a cache of their pixels; its bundle lies beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMEN_CACHE", str(photos.parent / "cache"))
        config = Config.model_validate(
            {
                "data": {
                    "path": str(photos),
                    "image_size": [32, 24],
                    "resize": "crop",
                    "split": {"by": "class", "train": 0.4, "validation": 0.3, "test": 0.3},
                    "memory_gb": 0,
                    "augmentation": {"crop": 0.3, "flip": True, "colour": 0.2},
                },
                "model": {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 8},
                "loss": "multi_similarity",
                "sampler": {"batch_size": 16, "items_per_class": 4},
                "schedule": {"epochs": 1, "steps_per_epoch": 3, "patience": None},
            }
        )
        finished = train(config, photos.parent / "run")
    run("export", finished.path, "--out", photos.parent / "bundle", "--set", "calibration.score=cosine")
    embedded = finished.load_embeddings("test")
    assert embedded is not None
    return embedded


@pytest.fixture(scope="module")
def address(photos: Path, trained: EmbeddingSet) -> Iterator[str]:
    """A service of the bundle."""
    with serve(photos.parent / "bundle") as at:
        yield at


@pytest.mark.parametrize("name", FORMS)
def test_posted_bytes_get_the_vector_of_training(
    photos: Path, trained: EmbeddingSet, address: str, name: str
) -> None:
    rows = [row for row, item_id in enumerate(trained.ids.tolist()) if item_id.endswith(f"/{name}")]
    assert len(rows) >= 3
    contents = [encode((photos / trained.ids[row]).read_bytes()) for row in rows]
    answer = httpx.post(f"{address}/v1/embeddings", json={"input": contents}, timeout=60).json()
    served = np.array([entry["embedding"] for entry in answer["data"]])
    np.testing.assert_allclose(served, trained.vectors[rows], atol=1e-5)
    queries = {"queries": [{"input": content} for content in contents]}
    results = httpx.post(f"{address}/v1/match", json=queries, timeout=60).json()["results"]
    for row, result in zip(rows, results, strict=True):
        assert result["similarity"] >= 1 - 1e-5
        assert result["decision"] == "match"
        assert result["label"] == trained.labels[row]


@pytest.mark.parametrize("name", BROKEN)
def test_what_training_refuses_serving_refuses_in_the_same_words(
    photos: Path, address: str, tmp_path: Path, name: str
) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(2):
            draw(ord(label), number).save(tmp_path / label / f"{number}.png")
    (tmp_path / "b" / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError) as trained_on:
        load_made(tmp_path, split=EVERYTHING, image_size=[32, 24])
    start, end = f"b/{name} cannot be used: ", " Remove it, or set data.broken=skip."
    said = str(trained_on.value)
    assert said.startswith(start)
    assert said.endswith(end)
    reason = said[len(start) : -len(end)]
    answer = httpx.post(
        f"{address}/v1/match", json={"queries": [{"input": encode(BROKEN[name])}]}, timeout=60
    )
    assert answer.status_code in (413, 422)
    assert reason in answer.text, (reason, answer.text)
