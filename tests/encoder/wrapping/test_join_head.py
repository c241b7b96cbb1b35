"""A head joined to an ONNX network answers as network, pooling and head one after the other."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from api_schemas.preprocessing import NetworkInterface, Pooling
from encoder.wrapping.join_head import join_head

TOKENS = {"input_ids": ("n", "t"), "attention_mask": ("n", "t")}


def write_tokens(path: Path, opset: int) -> NetworkInterface:
    """Token ids to a row of a table for each, [n, t, 3]; the mask is taken and not used."""
    table = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["gathered"]),
        helper.make_node("Identity", ["gathered"], ["states"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name, dims in TOKENS.items()],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["n", "t", 3])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return NetworkInterface(input="input_ids", mask="attention_mask", output="states")


def write_map(path: Path, opset: int) -> NetworkInterface:
    """Images as they are, as a feature map."""
    shape = ["n", 3, 4, 5]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["map"])],
        "map",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return NetworkInterface(input="images", output="map")


def run(model: bytes | Path, feeds: dict[str, object], output: str) -> np.ndarray:
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run([output], feeds)[0]
    return answer


@pytest.mark.parametrize(("pooling", "opset"), list(product(("mean", "max", "cls"), (12, 13, 17, 18))))
def test_tokens_are_pooled_as_the_mask_says(tmp_path: Path, pooling: Pooling, opset: int) -> None:
    interface = write_tokens(tmp_path / "network.onnx", opset).model_copy(update={"pooling": pooling})
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    ids = np.array([[1, 2, 3], [4, 5, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    feeds = {"input_ids": ids, "attention_mask": mask}
    states = run(tmp_path / "network.onnx", feeds, "states")
    joined, new = join_head(tmp_path / "network.onnx", interface, 3, weight, bias)
    onnx.checker.check_model(onnx.load_from_string(joined))
    kept = [states[0], states[1, :2]]
    pooled = {
        "mean": np.stack([rows.mean(0) for rows in kept]),
        "max": np.stack([rows.max(0) for rows in kept]),
        "cls": states[:, 0],
    }[pooling]
    assert new.pooling is None
    np.testing.assert_allclose(run(joined, feeds, new.output), pooled @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize(("layout", "opset"), [("NCHW", 17), ("NHWC", 18)])
def test_maps_are_pooled_over_positions(tmp_path: Path, layout: str, opset: int) -> None:
    interface = write_map(tmp_path / "network.onnx", opset)
    interface = interface.model_copy(update={"pooling": "mean", "layout": layout})
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    weight = np.random.default_rng(1).normal(size=(2, 3 if layout == "NCHW" else 5)).astype(np.float32)
    joined, new = join_head(tmp_path / "network.onnx", interface, 4, weight, np.zeros(2, np.float32))
    expected = images.mean(axes) @ weight.T
    np.testing.assert_allclose(run(joined, {"images": images}, new.output), expected, atol=1e-5)
