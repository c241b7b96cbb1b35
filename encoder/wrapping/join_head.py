"""A linear head behind a network that was made elsewhere, in one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.preprocessing import NetworkInterface
from common.array_types import Float32s
from common.errors import needs

PREFIX = "limen_head"  # of the names of what is added


def join_head(
    source: Path, interface: NetworkInterface, output_ndim: int, weight: Float32s, bias: Float32s
) -> tuple[bytes, NetworkInterface]:
    """The network with the head behind its output, pooled as its interface says, and the new interface.

    Args:
        source: its ONNX file.
        output_ndim: dimensions of its output's array.
        weight: float32 [outputs, features]. bias: float32 [outputs].
    """
    with needs("a head on an ONNX network", "wrap"):
        import onnx
    model = onnx.load(source)
    graph = _Graph(model, onnx)
    features = graph.add("Cast", interface.output, to=onnx.TensorProto.FLOAT)
    if interface.pooling is not None and output_ndim > 2:
        features = _pool(graph, features, interface, output_ndim)
    stored, shift = graph.store(weight.T), graph.store(bias)
    embedding = graph.add("Add", graph.add("MatMul", features, stored), shift)
    del model.graph.output[:]
    size = len(bias)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(embedding, onnx.TensorProto.FLOAT, ["batch", size])
    )
    joined: bytes = model.SerializeToString()
    return joined, interface.model_copy(update={"output": embedding, "pooling": None})


class _Graph:
    """A model's graph that nodes are added to; their outputs get names of their own."""

    def __init__(self, model: Any, onnx: Any) -> None:
        self.graph, self.onnx, self._count = model.graph, onnx, 0
        self.opset = next(part.version for part in model.opset_import if part.domain in ("", "ai.onnx"))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        name = self._name()
        self.graph.node.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def store(self, values: NDArray[Any]) -> str:
        """Add a constant; its name."""
        name = self._name()
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def reduce(self, kind: str, values: str, axis: int, since: int) -> str:
        """Reduce one axis away; axes are an input of the node from opset ``since`` on."""
        if self.opset >= since:
            return self.add(kind, values, self.store(np.array([axis])), keepdims=0)
        return self.add(kind, values, axes=[axis], keepdims=0)

    def _name(self) -> str:
        self._count += 1
        return f"{PREFIX}_{self._count}"


def _pool(graph: _Graph, output: str, interface: NetworkInterface, ndim: int) -> str:
    """One vector an input, as ``encoder.network.Network`` makes it of tokens or positions."""
    if ndim == 4:
        if interface.layout == "NHWC":
            output = graph.add("Transpose", output, perm=[0, 3, 1, 2])
        flat = graph.add("Reshape", output, graph.store(np.array([0, 0, -1])))
        output = graph.add("Transpose", flat, perm=[0, 2, 1])
    if interface.pooling == "cls":
        return graph.add("Gather", output, graph.store(np.array(0)), axis=1)
    mask = None
    if interface.mask is not None:
        present = graph.add("Cast", interface.mask, to=graph.onnx.TensorProto.FLOAT)
        mask = graph.add("Reshape", present, graph.store(np.array([0, -1, 1])))
    if interface.pooling == "max":
        if mask is not None:
            absent = graph.add("Sub", mask, graph.store(np.array(1, np.float32)))
            output = graph.add(
                "Add", output, graph.add("Mul", absent, graph.store(np.array(1e30, np.float32)))
            )
        return graph.reduce("ReduceMax", output, 1, since=18)
    if mask is None:
        return graph.reduce("ReduceMean", output, 1, since=18)
    total = graph.reduce("ReduceSum", graph.add("Mul", output, mask), 1, since=13)
    count = graph.add(
        "Max", graph.reduce("ReduceSum", mask, 1, since=13), graph.store(np.array(1, np.float32))
    )
    return graph.add("Div", total, count)
