"""From raw inputs to unit vectors, and every input that must be refused in words."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.preprocessing import ImageInput, VectorInput
from common.errors import BundleError, InputError
from encoder import Encoder, InputLimits, RefusedInput
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.row_input import TablePreprocessing
from tests.encoder.encoders import GREY, TABLE, data_uri, linear_encoder, png


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (4, 6), dtype=np.uint8))


def test_image_matches_a_loop_by_eye(tmp_path: Path, noise: Image.Image) -> None:
    weights = linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path)
    flat = [(value / 255 - 0.5) / 0.25 for value in np.asarray(noise).ravel().tolist()]
    expected = np.array(flat) @ weights.astype(np.float64)
    expected /= np.linalg.norm(expected)
    got = encoder.encode([noise])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], expected, atol=1e-6)
    assert (encoder.kind, encoder.dim) == ("image", 5)


def test_all_carriers_of_one_image_agree(tmp_path: Path, noise: Image.Image) -> None:
    linear_encoder(tmp_path, GREY)
    content = png(noise)
    rows = Encoder.open(tmp_path).encode(
        [noise, content, data_uri(content), base64.b64encode(content).decode()]
    )
    assert (rows == rows[0]).all()


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    linear_encoder(tmp_path, TABLE)
    encoder = Encoder.open(tmp_path)
    rows = np.random.default_rng(2).normal(size=(150, 3)).tolist()
    together = encoder.encode(rows)
    alone = np.concatenate([encoder.encode([row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert encoder.encode([]).shape == (0, 5)


def test_table_is_standardised(tmp_path: Path) -> None:
    prepared = TablePreprocessing(TABLE).prepare([[1.0, 1.0, 6.0]])
    np.testing.assert_array_equal(prepared, np.array([[1.0, 0.0, 1.0]], dtype=np.float32))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_sizes_modes_and_transparency(resize: str) -> None:
    rule = ImageInput(mode="RGB", height=8, width=8, resize=resize, fill=255, mean=[0.0] * 3, std=[1.0] * 3)  # type: ignore[arg-type]
    preprocessing = ImagePreprocessing(rule)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "HSV", "I;16"):
        assert preprocessing.prepare([Image.new(mode, (5, 9))]).shape == (1, 3, 8, 8)
    clear = Image.new("RGBA", (5, 9), (0, 0, 0, 0))
    assert (preprocessing.prepare([clear]) == 1.0).all(), "transparent pixels lie on the fill"


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((4, 6), 257 * 100, dtype=np.uint16))
    assert (ImagePreprocessing(GREY).compute_pixels(deep) == 100).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_the_same_in_every_file(kind: str) -> None:
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2_000
    for rule in (GREY, ImageInput(mode="RGB", height=4, width=6, mean=[0.0] * 3, std=[1.0] * 3)):
        pixels = ImagePreprocessing(rule).compute_pixels(
            Image.open(io.BytesIO(png(Image.fromarray(deep), kind)))
        )
        np.testing.assert_array_equal(pixels, np.broadcast_to(np.round(deep / 257), pixels.shape))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_thirty_two_bits_are_refused(tmp_path: Path, noise: Image.Image, dtype: type) -> None:
    linear_encoder(tmp_path, GREY)
    deep = Image.fromarray(np.asarray(noise).astype(dtype))
    tiff = png(deep, "TIFF")
    for one in (deep, tiff, data_uri(tiff)):
        with pytest.raises(RefusedInput, match=r"Input 1: the image's pixels are 32-bit .* 8 or 16 bits"):
            Encoder.open(tmp_path).encode([noise, one])


def test_colours_and_orientations_that_pillow_cannot_read_are_refused(
    tmp_path: Path, noise: Image.Image
) -> None:
    linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path)
    for kind in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        noise.convert("RGB").save(buffer, kind, exif=b"Exif\0\0MMxx")
        with pytest.raises(RefusedInput, match=r"Input 1: the image's orientation or colours cannot be read"):
            encoder.encode([noise, buffer.getvalue()])
    with pytest.raises(RefusedInput, match=r"Input 1: the image's orientation or colours cannot be read"):
        encoder.encode([noise, Image.new("La", (5, 9))])
    lab = png(Image.new("LAB", (5, 9), (255, 128, 128)), "TIFF")
    assert (ImagePreprocessing(GREY).compute_pixels(Image.open(io.BytesIO(lab))) >= 250).all(), "white"


def test_camera_orientation_is_applied() -> None:
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(
        ImagePreprocessing(GREY).compute_pixels(Image.open(buffer))[0], np.asarray(upright)
    )


def test_refused_images_are_named(tmp_path: Path, noise: Image.Image) -> None:
    linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path, limits=InputLimits(image_bytes=10_000, image_pixels=10_000))
    good = data_uri(png(noise))
    cases: dict[str | bytes, str] = {
        data_uri(b"not an image"): "not an image",
        data_uri(png(noise)[:60]): "broken",
        "data:image/png;base64,@@@": "base64",
        "data:image/png,plain": "data URI",
        "https://example.org/cat.png": "base64",
        data_uri(png(Image.new("L", (200, 200)))): "200 x 200 pixels",
        data_uri(b"\x00" * 20_000): "bytes",
        b"\x00" * 20_000: "bytes",
        data_uri(png(noise, "PPM")): "not an image",
        "": "not an image",
    }
    for bad, words in cases.items():
        with pytest.raises(InputError, match=words) as refusal:
            encoder.encode([good, bad])
        assert "Input 1" in str(refusal.value)
    with pytest.raises(InputError, match="takes images"):
        encoder.encode([[1.0, 2.0]])


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    linear_encoder(tmp_path, GREY)
    bomb = png(Image.new("1", (30_000, 30_000)))
    with pytest.raises(InputError, match="pixels"):
        Encoder.open(tmp_path).encode([bomb])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1.0, 2.0], "Input 70: this model takes rows of 3 numbers, found 2 values"),
        ([1.0, float("nan"), 0.0], "Input 70: it has a value that is not finite"),
        ([1.0, 1e300, 0.0], "Input 70: it has a value that does not fit"),
        (["a", "b", "c"], "Input 70: .*not a number"),
        ("text", "Input 70: this model takes rows of 3 numbers"),
    ],
)
def test_refused_rows_are_named(tmp_path: Path, row: object, words: str) -> None:
    linear_encoder(tmp_path, TABLE)
    rows: list[object] = [[1.0, 2.0, 3.0]] * 70
    with pytest.raises(InputError, match=words):
        Encoder.open(tmp_path).encode([*rows, row])  # type: ignore[list-item]


def test_an_answer_without_direction_is_refused(tmp_path: Path) -> None:
    linear_encoder(tmp_path, VectorInput(dim=3))
    with pytest.raises(InputError, match="no direction"):
        Encoder.open(tmp_path).encode([[0.0, 0.0, 0.0]])


def test_files_that_are_not_an_encoder(tmp_path: Path) -> None:
    linear_encoder(tmp_path, GREY)
    (tmp_path / "encoder.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be loaded"):
        Encoder.open(tmp_path)
    (tmp_path / "preprocessing.json").write_text('{"schema_version": 1, "input": {"kind": "sound"}}')
    with pytest.raises(InputError, match=r"preprocessing\.json"):
        Encoder.open(tmp_path)
