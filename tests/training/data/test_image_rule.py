"""The default preprocessing of images: size, mode and normalisation of the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError

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


def write_photos(folder: Path, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for label in "abc":
        (folder / label).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_a_rectangle_is_prepared_alike_in_training_and_serving(tmp_path: Path, resize: str) -> None:
    write_photos(tmp_path, (60, 50))
    splits = load_made(tmp_path, split=EVERYTHING, image_size=[48, 24], resize=resize)
    rule = splits.preprocessing.rule
    assert (rule.height, rule.width, rule.resize) == (48, 24, resize)  # type: ignore[union-attr]
    assert splits.train.inputs.shape == (6, 3, 48, 24)
    image = Image.open(tmp_path / str(splits.train.ids[0]))
    wanted = {
        "stretch": lambda: image.resize((24, 48), Image.Resampling.BILINEAR),
        "pad": lambda: ImageOps.pad(image, (24, 48), Image.Resampling.BILINEAR, (255,) * 3),
        "crop": lambda: ImageOps.fit(image, (24, 48), Image.Resampling.BILINEAR),
    }[resize]()
    np.testing.assert_array_equal(splits.train.inputs[0], np.asarray(wanted).transpose(2, 0, 1))
    served = splits.preprocessing.prepare([(tmp_path / str(splits.train.ids[0])).read_bytes()])
    np.testing.assert_array_equal(served, splits.preprocessing.normalise(splits.train.inputs[[0]]))


def test_images_of_the_shape_are_stretched_and_others_padded(tmp_path: Path) -> None:
    write_photos(tmp_path / "wide", (121, 60))
    write_photos(tmp_path / "square", (60, 60))
    for name, size, resize in (
        ("wide", [30, 60], "stretch"),
        ("wide", 30, "pad"),
        ("square", [30, 60], "pad"),
        ("square", 30, "stretch"),
    ):
        rule = load_made(tmp_path / name, split=EVERYTHING, image_size=size).preprocessing.rule
        assert rule.resize == resize, (name, size)  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="at least 2 items"):
        load_made(tmp_path / "wide", image_size=[30])
    with pytest.raises(ValidationError, match="greater than or equal to 8"):
        load_made(tmp_path / "wide", image_size=[30, 4])
    with pytest.raises(ValidationError, match=r"leave data\.resize out"):
        load_made(tmp_path / "wide", preprocessing="imagenet", resize="crop")
