"""Small ONNX networks as somebody else might have exported them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
FLOAT, FLOAT16, UINT8, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
DIM = 4


def save_network(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Dims]],
    outputs: Sequence[tuple[str, int, Dims]],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Path:
    """Write a network of those nodes."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def draw_weights(rows: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)


def write_image_network(
    path: Path, dims: Dims = ("n", 3, "h", "w"), dtype: int = FLOAT, opset: int = 17
) -> Path:
    """The mean of each channel times a matrix [3, DIM]: what a loop over pixels computes as well."""
    last = dims[-1] == 3
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=FLOAT),
        helper.make_node("ReduceMean", ["values"], ["means"], axes=[1, 2] if last else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["features"]),
    ]
    batch = dims[0]
    return save_network(
        path,
        nodes,
        [("images", dtype, dims)],
        [("features", FLOAT, [batch, DIM])],
        {"weights": draw_weights(3)},
        opset,
    )


def write_text_network(path: Path, output: str = "tokens", length: int | str = "length") -> Path:
    """BERT's inputs; ``tokens`` answers a row of a table for each token, ``masked`` their sum."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    nodes = [
        helper.make_node("Add", ["input_ids", "token_type_ids"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["last_hidden_state"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["wide"]),
        helper.make_node("Mul", ["last_hidden_state", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sentence_embedding"], keepdims=0),
    ]
    outputs: dict[str, list[tuple[str, int, Dims]]] = {
        "tokens": [("last_hidden_state", FLOAT, ["n", length, DIM])],
        "masked": [("sentence_embedding", FLOAT, ["n", DIM])],
    }
    outputs["both"] = outputs["tokens"] + outputs["masked"]
    weights = {"table": draw_weights(50), "one": np.array([1]), "two": np.array([2])}
    return save_network(
        path, nodes, [(name, INT64, ["n", length]) for name in names], outputs[output], weights
    )


def write_tokenizer(path: Path) -> Path:
    """Words by a small vocabulary, between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[UNK]", "[CLS]", "[SEP]", *["one", "two", "three", "four", "five", "six", "seven", "eight"]]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    path.write_text(made.to_str())
    return path


def write_spectrogram_network(path: Path, dims: Dims = ("n", "t", 8), mels: int = 8) -> Path:
    """The mean of each mel band over time times a matrix [mels, DIM]; ``dims`` say where the bands are."""
    time = [axis for axis, size in enumerate(dims) if axis and size != mels]
    nodes = [
        helper.make_node("ReduceMean", ["mels"], ["means"], axes=time, keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["features"]),
    ]
    return save_network(
        path,
        nodes,
        [("mels", FLOAT, dims)],
        [("features", FLOAT, [dims[0], DIM])],
        {"weights": draw_weights(mels)},
    )
