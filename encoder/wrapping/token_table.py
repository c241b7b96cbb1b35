"""Static token embeddings as an encoder: a text is the mean of its tokens' rows in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError, needs

OPSET = 17
IR_VERSION = 8
IDS, MASK, OUTPUT = "input_ids", "attention_mask", "embedding"


def write_token_table(source: Path, target: Path, name: str | None = None) -> None:
    """Write the table of a ``.safetensors`` file as an ONNX network from token ids and mask to vectors.

    The sum of the rows is answered, which has the direction of their mean.

    Args:
        name: of the table, where the file holds several matrices.

    Raises:
        InputError: the file is damaged, or which matrix is the table is not plain.
    """
    with needs("a token table", "wrap"):
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    table = read_token_table(source, name)
    nodes = [
        helper.make_node("Gather", ["table", IDS], ["stored"]),
        helper.make_node("Cast", ["stored"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [MASK, "last"], ["present"]),
        helper.make_node("Mul", ["rows", "present"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], [OUTPUT], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "token_table",
        [
            helper.make_tensor_value_info(IDS, TensorProto.INT64, ["n", "length"]),
            helper.make_tensor_value_info(MASK, TensorProto.FLOAT, ["n", "length"]),
        ],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", table.shape[1]])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="limen"
    )
    onnx.save(model, target)


def read_token_table(source: Path, name: str | None = None) -> NDArray[Any]:
    """The one matrix of a ``.safetensors`` file, or that of a name; see ``write_token_table``."""
    with needs("a token table", "wrap"):
        from safetensors import safe_open
    try:
        with safe_open(source, framework="numpy") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            tables = [key for key, shape in shapes.items() if len(shape) == 2]
            if name is None and len(tables) != 1:
                raise InputError(
                    f"{source} holds {len(tables)} matrices of {len(shapes)} tensors: weights alone are no "
                    "network; give the ONNX file of the network, or name a token table with --input."
                )
            chosen = name or tables[0]
            if chosen not in tables:
                raise InputError(f"{source} has no matrix '{chosen}'; it has {', '.join(tables)}.")
            table: NDArray[Any] = opened.get_tensor(chosen)
    except (InputError, OSError):
        raise
    except Exception as error:  # safetensors raises exceptions of its own
        raise InputError(f"{source} cannot be read as safetensors: {error}.") from None
    if table.dtype not in (np.float16, np.float32):
        raise InputError(f"{source}: the table '{chosen}' holds {table.dtype}, expected float16 or float32.")
    if not np.isfinite(table).all():
        raise InputError(f"{source}: the table '{chosen}' holds NaN or infinity.")
    return table
