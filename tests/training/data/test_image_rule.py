"""The default preprocessing of images: size, mode and normalisation of the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from api_schemas.preprocessing import ImageInput
from tests.training.runs import EVERYTHING, load_made
from training.data.image_rule import fit_normalisation


def test_the_size_is_the_median_capped_and_grey_is_seen(drawings: Path) -> None:
    rule = load_made(drawings).preprocessing.rule
    assert rule.kind == "image"
    assert (rule.mode, rule.height, rule.width) == ("L", 12, 12)
    assert rule.mean == [1.0], "white paper must become 0"
    assert load_made(drawings, image_size=20).preprocessing.shape == (1, 20, 20)


def test_large_images_are_capped_and_colour_is_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in "abc":
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            pixels = random.integers(0, 255, (100, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    splits = load_made(tmp_path, split=EVERYTHING)
    rule = splits.preprocessing.rule
    assert splits.train.inputs.shape == (6, 3, 64, 64)
    assert rule.kind == "image"
    assert rule.resize == "pad", "a stretched photo is another picture"


def test_statistics_are_those_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    rule = fit_normalisation(ImageInput(mode="RGB", height=8, width=8, mean=[0.0] * 3, std=[1.0] * 3), pixels)
    np.testing.assert_allclose(rule.mean, pixels.mean(axis=(0, 2, 3)) / 255, atol=1e-5)
    np.testing.assert_allclose(rule.std, (pixels / 255).std(axis=(0, 2, 3)), atol=1e-5)


def test_one_picture_in_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 2, (12, 12), dtype=np.uint8) * 255
    picture = Image.fromarray(grey)
    palette = Image.fromarray((grey > 0).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    turned, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    forms: dict[str, Image.Image] = {
        "grey.png": picture,
        "palette.png": palette,
        "one bit.png": picture.convert("1"),
        "colour.bmp": picture.convert("RGB"),
        "opaque.png": picture.convert("RGBA"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "deep.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.gif": palette,
    }
    for label in "ab":
        (tmp_path / label).mkdir()
        for name, image in forms.items():
            image.save(tmp_path / label / name)
        turned.save(tmp_path / label / "turned.png", exif=exif)
    items = load_made(tmp_path, split=EVERYTHING).train
    assert items.inputs.shape == (18, 1, 12, 12), "black and white is grey, whatever holds it"
    for name, pixels in zip(items.ids, items.inputs, strict=True):
        np.testing.assert_array_equal(pixels[0], grey, err_msg=str(name))
