"""From raw inputs to unit vectors."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.preprocessing import VectorInput
from common.errors import BundleError, InputError
from encoder import Encoder
from tests.encoder.encoders import GREY, TABLE, encode_data_uri, encode_png, write_linear_encoder


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (4, 6), dtype=np.uint8))


def test_image_matches_a_loop_by_eye(tmp_path: Path, noise: Image.Image) -> None:
    weights = write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path)
    flat = [(value / 255 - 0.5) / 0.25 for value in np.asarray(noise).ravel().tolist()]
    expected = np.array(flat) @ weights.astype(np.float64)
    expected /= np.linalg.norm(expected)
    got = encoder.encode([noise])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], expected, atol=1e-6)
    assert (encoder.preprocessing.kind, encoder.dim) == ("image", 5)


def test_all_carriers_of_one_image_agree(tmp_path: Path, noise: Image.Image) -> None:
    write_linear_encoder(tmp_path, GREY)
    content = encode_png(noise)
    rows = Encoder.open(tmp_path).encode(
        [noise, content, encode_data_uri(content), base64.b64encode(content).decode()]
    )
    assert (rows == rows[0]).all()


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, TABLE)
    encoder = Encoder.open(tmp_path)
    rows = np.random.default_rng(2).normal(size=(150, 3)).tolist()
    together = encoder.encode(rows)
    alone = np.concatenate([encoder.encode([row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert encoder.encode([]).shape == (0, 5)


def test_an_answer_without_direction_is_refused(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, VectorInput(dim=3))
    with pytest.raises(InputError, match="no direction"):
        Encoder.open(tmp_path).encode([[0.0, 0.0, 0.0]])


def test_files_that_are_not_an_encoder(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, GREY)
    (tmp_path / "encoder.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be loaded"):
        Encoder.open(tmp_path)
    (tmp_path / "preprocessing.json").write_text('{"schema_version": 1, "input": {"kind": "sound"}}')
    with pytest.raises(InputError, match=r"preprocessing\.json"):
        Encoder.open(tmp_path)
