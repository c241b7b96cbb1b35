"""Thumbnails: never larger than asked, upright, and nothing of the file but its pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from api_schemas.preprocessing import ImageInput
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import InputLimits, RefusedInput
from encoder.thumbnails import TEXT, TEXT_CHARACTERS, WEBP, get_media_type, make_thumbnail
from tests.encoder.encoders import GREY

RULE = ImagePreprocessing(ImageInput(mode="L", height=8, width=8, mean=[0.0], std=[1.0]))


def save(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def read(thumbnail: bytes | None) -> Image.Image:
    assert thumbnail is not None
    assert get_media_type(thumbnail) == WEBP
    return Image.open(io.BytesIO(thumbnail))


def make_noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("side", [16, 96, 512])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (400, 10), (10, 400), (1200, 900), (17, 2000)])
def test_never_larger_than_asked(size: tuple[int, int], side: int) -> None:
    thumbnail = make_thumbnail(RULE, save(make_noise(*size)), side)
    image = read(thumbnail)
    assert max(image.size) <= min(side, max(size))
    assert min(image.size) >= 1
    assert thumbnail is not None
    assert len(thumbnail) <= max(1024, side * side)


def test_a_small_picture_keeps_its_size() -> None:
    assert read(make_thumbnail(RULE, save(make_noise(28, 20)), 96)).size == (28, 20)


def test_the_proportions_are_kept() -> None:
    assert read(make_thumbnail(RULE, save(make_noise(1200, 600)), 96)).size == (96, 48)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG", "TIFF"])
def test_nothing_but_pixels_is_kept(form: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a private description"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 15.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = save(make_noise(200, 100), form, exif=exif, icc_profile=profile)
    assert b"a private description" in content, "the test's own picture has what must go"
    thumbnail = make_thumbnail(RULE, content, 96)
    image = read(thumbnail)
    assert thumbnail is not None
    assert b"private" not in thumbnail
    assert not image.getexif()
    assert not {"exif", "icc_profile", "xmp"} & image.info.keys()


def test_an_xmp_packet_and_a_comment_go_as_well() -> None:
    content = save(make_noise(64, 64), "JPEG", comment=b"secret comment", xmp=b"<x>secret place</x>")
    assert content.count(b"secret") == 2
    thumbnail = make_thumbnail(RULE, content, 96)
    assert thumbnail is not None
    assert b"secret" not in thumbnail


def test_it_is_upright() -> None:
    image = Image.new("RGB", (80, 40), "white")
    image.paste("black", (0, 0, 40, 40))  # black on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright = read(make_thumbnail(RULE, save(image, "JPEG", exif=exif), 96)).convert("L")
    assert upright.size == (40, 80)
    assert upright.getpixel((20, 10)) < 60  # type: ignore[operator]
    assert upright.getpixel((20, 70)) > 200  # type: ignore[operator]


def test_what_is_transparent_is_white() -> None:
    image = read(make_thumbnail(RULE, save(Image.new("RGBA", (20, 20), (0, 0, 0, 0))), 96))
    assert image.convert("RGB").getpixel((10, 10)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16", "RGBA"])
def test_every_mode_can_be_shown(mode: str) -> None:
    form = "TIFF" if mode in {"CMYK", "I;16"} else "PNG"
    assert read(make_thumbnail(RULE, save(Image.new(mode, (30, 20)), form), 96)).size == (30, 20)


def test_data_uris_and_images_are_taken_like_files() -> None:
    content = save(make_noise(64, 64))
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    assert make_thumbnail(RULE, uri, 32) == make_thumbnail(RULE, content, 32)
    assert make_thumbnail(RULE, make_noise(64, 64), 32) == make_thumbnail(RULE, content, 32)


def test_the_limits_of_inputs_hold() -> None:
    with pytest.raises(RefusedInput, match="100 x 100 pixels"):
        make_thumbnail(RULE, save(make_noise(100, 100)), 96, InputLimits(image_pixels=9_999))
    with pytest.raises(RefusedInput, match="not an image"):
        make_thumbnail(RULE, b"GIF89a?", 96)


def test_a_text_is_its_beginning() -> None:
    from encoder.inputs.text_input import NgramPreprocessing

    rule = NgramPreprocessing.__new__(NgramPreprocessing)  # nothing of it is asked but what it is
    thumbnail = make_thumbnail(rule, "é" * 2_000, 96)
    assert thumbnail == ("é" * TEXT_CHARACTERS).encode()
    assert get_media_type(thumbnail) == TEXT
    half = make_thumbnail(rule, "half \ud800", 96)
    assert half is not None
    assert half.decode() == "half ?"


def test_a_row_of_numbers_has_none() -> None:
    from encoder.inputs.row_input import VectorPreprocessing

    assert make_thumbnail(VectorPreprocessing.__new__(VectorPreprocessing), [0.6, 0.8], 96) is None


def test_grey_encoders_have_coloured_thumbnails() -> None:
    red = Image.new("RGB", (40, 40), (200, 0, 0))
    rule = ImagePreprocessing(GREY)
    pixel = read(make_thumbnail(rule, save(red), 96)).convert("RGB").getpixel((20, 20))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 180
    assert max(pixel[1:]) < 30
