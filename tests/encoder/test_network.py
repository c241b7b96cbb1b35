"""How prepared inputs are fed to a network: padding, types, and one vector out of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_schemas.preprocessing import ImageInput, NetworkInterface, PreprocessingDocument, TokenInput
from encoder import Encoder
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.text_input import TokenPreprocessing
from encoder.network import Network, open_session
from tests.encoder.encoders import GREY
from tests.encoder.wrapping.networks import draw_weights, write_image_network, write_text_network

RULE = ImageInput(mode="RGB", height=4, width=6, mean=[0.0] * 3, std=[1.0] * 3)
BGR = RULE.model_copy(update={"order": "BGR"})


def open_text(folder: Path, pooling: str) -> Network:
    session = open_session(write_text_network(folder / "a.onnx"), 1)
    interface = NetworkInterface.model_validate(
        {
            "input": "input_ids",
            "mask": "attention_mask",
            "types": "token_type_ids",
            "output": "last_hidden_state",
            "pooling": pooling,
        }
    )
    rule = TokenInput(length=6, tokenizer_sha256="0" * 64)
    return Network(session, TokenPreprocessing(rule), interface)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_padding_is_in_no_vector(tmp_path: Path, pooling: str) -> None:
    network = open_text(tmp_path, pooling)
    short = np.array([[4, 6, 0, 0, 0, 0]], dtype=np.float32)  # one more than each id
    among = np.array([[4, 6, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], dtype=np.float32)
    states = draw_weights(50)[[3, 5]]
    expected = {"mean": states.mean(axis=0), "max": states.max(axis=0), "cls": states[0]}[pooling]
    np.testing.assert_allclose(network.run(short)[0], expected, atol=1e-6)
    np.testing.assert_allclose(network.run(among)[0], expected, atol=1e-6)


def test_a_text_without_tokens_has_no_direction(tmp_path: Path) -> None:
    empty = np.zeros((1, 6), dtype=np.float32)
    np.testing.assert_array_equal(open_text(tmp_path, "mean").run(empty), np.zeros((1, 4)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_channels_come_in_the_networks_place_and_order(tmp_path: Path, layout: str) -> None:
    dims = ("n", 3, "h", "w") if layout == "NCHW" else ("n", "h", "w", 3)
    write_image_network(tmp_path / "encoder.onnx", dims)
    interface = NetworkInterface.model_validate({"input": "images", "output": "features", "layout": layout})
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[..., 0] = 200  # red
    for rule, channel in ((RULE, 0), (BGR, 2)):
        ImagePreprocessing(rule).save(tmp_path / "preprocessing.json", interface)
        row = Encoder.open(tmp_path).encode([_to_image(pixels)])[0]
        expected = draw_weights(3)[channel]
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_documents_of_earlier_encoders_keep_their_bytes(tmp_path: Path) -> None:
    ImagePreprocessing(GREY).save(tmp_path / "preprocessing.json")
    text = (tmp_path / "preprocessing.json").read_text()
    for name in ("network", "short_side", "interpolation", "order", "value_range"):
        assert name not in text
    assert PreprocessingDocument.load(tmp_path / "preprocessing.json").input == GREY
    changed = GREY.model_copy(update={"interpolation": "bicubic", "value_range": [0.0, 255.0]})
    ImagePreprocessing(changed).save(tmp_path / "preprocessing.json")
    assert PreprocessingDocument.load(tmp_path / "preprocessing.json").input == changed


def _to_image(pixels: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(pixels)
