"""Small encoders whose answers anyone can compute, and images for them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from api_schemas.preprocessing import AnyInput, ImageInput, TableInput
from encoder.inputs import INPUT_KINDS

GREY = ImageInput(mode="L", height=4, width=6, mean=[0.5], std=[0.25])
TABLE = TableInput(columns=["a", "b", "c"], means=[0.0, 1.0, 2.0], stds=[1.0, 2.0, 4.0])


def write_linear_encoder(
    folder: Path, rule: AnyInput, dim: int = 5, seed: int = 0, scale: float = 1.0
) -> np.ndarray:
    """Write an encoder that flattens its input and multiplies it with the returned matrix [inputs, dim]."""
    preprocessing = INPUT_KINDS[rule.kind](rule)
    width = int(np.prod(preprocessing.shape))
    weights = (np.random.default_rng(seed).normal(size=(width, dim)) * scale).astype(np.float32)
    axes = [f"axis{number}" for number in range(len(preprocessing.shape))]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *axes])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "encoder.onnx")
    preprocessing.save(folder / "preprocessing.json")
    return weights


def encode_png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def encode_data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
