"""An encoder opens the files that its bundle names, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from common.errors import BundleError
from encoder import Encoder
from encoder.onnx_files import list_external_files
from tests.encoder.encoders import GREY, write_linear_encoder

LISTED = ["encoder.onnx", "preprocessing.json"]


def move_weights_out(folder: Path, location: str) -> None:
    """Write the weights of the encoder into a file beside it, or elsewhere."""
    model = onnx.load(folder / "encoder.onnx")
    onnx.save(model, folder / "encoder.onnx", save_as_external_data=True, location=location, size_threshold=0)


@pytest.mark.parametrize("location", ["weights.bin", "inner/weights.bin"])
def test_weights_in_a_file_that_is_not_named_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "inner").mkdir()
    write_linear_encoder(tmp_path, GREY)
    assert list_external_files(tmp_path / "encoder.onnx") == []
    Encoder.open(tmp_path, listed=LISTED)
    move_weights_out(tmp_path, location)
    assert list_external_files(tmp_path / "encoder.onnx") == [location]
    with pytest.raises(BundleError, match=f"needs {location}, which the manifest does not name"):
        Encoder.open(tmp_path, listed=LISTED)
    Encoder.open(tmp_path, listed=[*LISTED, location])


def test_tensors_are_found_wherever_a_model_keeps_them(tmp_path: Path) -> None:
    def make_external(location: str) -> TensorProto:
        tensor = numpy_helper.from_array(np.ones(3, np.float32), location)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        return tensor

    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=make_external("in-a-branch"))],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])],
        [make_external("of-the-branch")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["a"], value=make_external("in-a-node")),
            helper.make_node("If", ["condition"], ["b"], then_branch=inner, else_branch=inner),
        ],
        "outer",
        [helper.make_tensor_value_info("condition", TensorProto.BOOL, [1])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [3])],
        [make_external("../outside"), make_external("/etc/passwd")],
    )
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(make_external("sparse"), make_external("sparse-places"), [9])
    )
    function = helper.make_function(
        "own",
        "F",
        [],
        ["y"],
        [helper.make_node("Constant", [], ["y"], value=make_external("in-a-function"))],
        [helper.make_opsetid("", 17)],
    )
    model = helper.make_model(graph, functions=[function])
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    assert set(list_external_files(tmp_path / "encoder.onnx")) == {
        "in-a-branch",
        "of-the-branch",
        "in-a-node",
        "../outside",
        "/etc/passwd",
        "sparse",
        "sparse-places",
        "in-a-function",
    }


@pytest.mark.parametrize(
    "content", [b"", b"network", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b" * 9]
)
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "encoder.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        list_external_files(tmp_path / "encoder.onnx")


def test_files_that_the_manifest_does_not_name_are_not_used(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, GREY)
    for listed, missing in (
        (["other.onnx", *LISTED[1:]], "encoder.onnx"),
        (LISTED[:1], "preprocessing.json"),
    ):
        with pytest.raises(BundleError, match=f"does not name {missing}"):
            Encoder.open(tmp_path, listed=listed)
