"""Images to arrays, and every image that must be refused in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.preprocessing import ImageInput
from common.errors import InputError
from common.time_budget import OutOfTime, TimeBudget, limit_time
from encoder import Encoder, InputLimits, RefusedInput
from encoder.inputs.image_input import ImagePreprocessing
from tests.encoder.encoders import GREY, encode_data_uri, encode_png, write_linear_encoder


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (4, 6), dtype=np.uint8))


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
            Image.open(io.BytesIO(encode_png(Image.fromarray(deep), kind)))
        )
        np.testing.assert_array_equal(pixels, np.broadcast_to(np.round(deep / 257), pixels.shape))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_thirty_two_bits_are_refused(tmp_path: Path, noise: Image.Image, dtype: type) -> None:
    write_linear_encoder(tmp_path, GREY)
    deep = Image.fromarray(np.asarray(noise).astype(dtype))
    tiff = encode_png(deep, "TIFF")
    for content in (deep, tiff, encode_data_uri(tiff)):
        with pytest.raises(RefusedInput, match=r"Input 1: the image's pixels are 32-bit .* 8 or 16 bits"):
            Encoder.open(tmp_path).encode([noise, content])


def test_colours_and_orientations_that_pillow_cannot_read_are_refused(
    tmp_path: Path, noise: Image.Image
) -> None:
    write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path)
    for kind in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        noise.convert("RGB").save(buffer, kind, exif=b"Exif\0\0MMxx")
        with pytest.raises(RefusedInput, match=r"Input 1: the image's orientation or colours cannot be read"):
            encoder.encode([noise, buffer.getvalue()])
    with pytest.raises(RefusedInput, match=r"Input 1: the image's orientation or colours cannot be read"):
        encoder.encode([noise, Image.new("La", (5, 9))])
    lab = encode_png(Image.new("LAB", (5, 9), (255, 128, 128)), "TIFF")
    assert (ImagePreprocessing(GREY).compute_pixels(Image.open(io.BytesIO(lab))) >= 250).all(), "white"


def test_camera_orientation_is_applied() -> None:
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    rotated = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    rotated.save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(
        ImagePreprocessing(GREY).compute_pixels(Image.open(buffer))[0], np.asarray(upright)
    )


def test_refused_images_are_named(tmp_path: Path, noise: Image.Image) -> None:
    write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path, limits=InputLimits(image_bytes=10_000, image_pixels=10_000))
    good = encode_data_uri(encode_png(noise))
    cases: dict[str | bytes, str] = {
        encode_data_uri(b"not an image"): "not an image",
        encode_data_uri(encode_png(noise)[:60]): "broken",
        "data:image/png;base64,@@@": "base64",
        "data:image/png,plain": "data URI",
        "https://example.org/cat.encode_png": "base64",
        encode_data_uri(encode_png(Image.new("L", (200, 200)))): "200 x 200 pixels",
        encode_data_uri(b"\x00" * 20_000): "bytes",
        b"\x00" * 20_000: "bytes",
        encode_data_uri(encode_png(noise, "TGA")): "not an image",
        "": "not an image",
    }
    for bad, words in cases.items():
        with pytest.raises(InputError, match=words) as refusal:
            encoder.encode([good, bad])
        assert "Input 1" in str(refusal.value)
    with pytest.raises(InputError, match="takes images"):
        encoder.encode([[1.0, 2.0]])


def build_jpeg_of_scans(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated; decoders take every repetition for a refinement."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    start = content.rindex(b"\xff\xda")
    last = content[start:-2]
    return content[:-2] + last * (scans - content.count(b"\xff\xda")) + b"\xff\xd9"


def test_images_that_take_long_for_their_size_are_refused(tmp_path: Path, noise: Image.Image) -> None:
    write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path, limits=InputLimits(image_side=2_000, image_scans=12))
    with pytest.raises(InputError, match="3000 x 2 pixels, at most 2000"):
        encoder.encode([encode_png(Image.new("1", (3_000, 2)))])
    with pytest.raises(InputError, match="over 12 scans"):
        encoder.encode([build_jpeg_of_scans(noise, 13)])
    encoder.encode([build_jpeg_of_scans(noise, 12)])
    with limit_time(TimeBudget(-1)), pytest.raises(OutOfTime):
        encoder.encode([encode_png(noise)])


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, GREY)
    bomb = encode_png(Image.new("1", (30_000, 30_000)))
    with pytest.raises(InputError, match="pixels"):
        Encoder.open(tmp_path).encode([bomb])


def build_rule(**changes: object) -> ImageInput:
    return ImageInput.model_validate(
        {"mode": "RGB", "height": 20, "width": 16, "mean": [0.0] * 3, "std": [1.0] * 3, **changes}
    )


@pytest.mark.parametrize("size", [(40, 30), (31, 77), (24, 24), (300, 25)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"])
def test_the_centre_is_cut_out_after_the_shorter_side_was_resized(
    size: tuple[int, int], interpolation: str
) -> None:
    """As torchvision's ``Resize(24)`` and ``CenterCrop((20, 16))`` do, written out."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    rule = build_rule(resize="crop", short_side=24, interpolation=interpolation)
    shorter = min(size)
    resized = tuple(24 if side == shorter else int(24 * side / shorter) for side in size)
    large = image if resized == size else image.resize(resized, Image.Resampling[interpolation.upper()])
    left, top = round((resized[0] - 16) / 2), round((resized[1] - 20) / 2)
    expected = np.asarray(large)[top : top + 20, left : left + 16].transpose(2, 0, 1)
    np.testing.assert_array_equal(ImagePreprocessing(rule).compute_pixels(image), expected)


def test_a_ribbon_is_cut_before_it_is_resized() -> None:
    """A picture of 16,000 x 2 pixels would become one of 192,000 x 24."""
    ribbon = Image.new("RGB", (16_000, 2), (10, 20, 30))
    largest: list[int] = []
    real = Image.Image.resize

    def resize(image: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        largest.append(max(size))
        return real(image, size, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", resize)
        pixels = ImagePreprocessing(build_rule(resize="crop", short_side=24)).compute_pixels(ribbon)
    assert pixels.shape == (3, 20, 16)
    assert max(largest) <= 16 * 24
    assert (pixels == np.array([10, 20, 30])[:, None, None]).all()


@pytest.mark.parametrize(
    ("value_range", "mean", "std", "expected"),
    [
        ([0.0, 1.0], 0.5, 0.25, (200 / 255 - 0.5) / 0.25),
        ([0.0, 255.0], 127.5, 127.5, (200 - 127.5) / 127.5),
        ([-1.0, 1.0], 0.0, 1.0, 200 / 255 * 2 - 1),
        ([0.0, 255.0], 0.0, 1.0, 200.0),
    ],
)
def test_pixels_are_brought_to_their_range_first(
    value_range: list[float], mean: float, std: float, expected: float
) -> None:
    rule = build_rule(value_range=value_range, mean=[mean] * 3, std=[std] * 3)
    prepared = ImagePreprocessing(rule).prepare([Image.new("RGB", (16, 20), (200, 200, 200))])
    np.testing.assert_allclose(prepared, expected, rtol=2e-6)


def test_scans_are_counted_in_files_of_several_images_as_well() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "MPO", save_all=True, append_images=[image], progressive=True)
    preprocessing = ImagePreprocessing(build_rule())
    assert preprocessing.prepare([file.getvalue()]).shape == (1, 3, 20, 16)
    with pytest.raises(RefusedInput, match=r"a JPEG of over 8 scans"):
        preprocessing.prepare([file.getvalue()], limits=InputLimits(image_scans=8))
