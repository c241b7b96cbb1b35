"""ONNX files from anywhere: refused before anything of them is run, each in one sentence."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from common.errors import InputError
from encoder.wrapping import network_file
from encoder.wrapping.network_file import NetworkFile, copy_network, open_network
from tests.encoder.wrapping.networks import FLOAT, draw_weights, save_network, write_image_network

IMAGES = [("images", FLOAT, ("n", 3, "h", "w"))]
FEATURES = [("features", FLOAT, ("n", "d"))]


def load(path: Path, tmp_path: Path) -> NetworkFile:
    copy_network(path, tmp_path / "copy.onnx")
    return open_network(tmp_path / "copy.onnx", str(path))


def refuse(path: Path, tmp_path: Path) -> str:
    with pytest.raises(InputError) as refusal:
        load(path, tmp_path)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert sentence.startswith(str(path))
    return sentence


def write_external(path: Path, location: str) -> Path:
    """A network whose matrix lies in another file."""
    model = onnx.load(write_image_network(path))
    tensor = numpy_helper.from_array(draw_weights(3), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "48"}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer[0].CopyFrom(tensor)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_plain_file_is_copied_byte_by_byte_and_described(tmp_path: Path) -> None:
    path = write_image_network(tmp_path / "a.onnx")
    network = load(path, tmp_path)
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
    assert [node.describe() for node in network.inputs] == ["'images' float [?, 3, ?, ?]"]
    assert [node.describe() for node in network.outputs] == ["'features' float [?, 4]"]


def test_weights_beside_the_file_are_brought_inside(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(draw_weights(3).tobytes())
    path = write_external(folder / "a.onnx", "weights.bin")
    load(path, tmp_path)
    (folder / "weights.bin").unlink()
    session = open_network(tmp_path / "copy.onnx", "copy").session
    got = session.run(None, {"images": np.ones((1, 3, 2, 2), np.float32)})[0]
    np.testing.assert_allclose(got[0], draw_weights(3).sum(axis=0), rtol=1e-6)
    assert "which is missing: put it beside the file" in refuse(path, tmp_path)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "{folder}/secret.bin", "inner/../../secret.bin", "link.bin", ""]
)
def test_weights_outside_the_folder_are_never_opened(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(draw_weights(3).tobytes())
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "link.bin").symlink_to(secret)
    path = write_external(folder / "a.onnx", location.format(folder=tmp_path))
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda name, *args, **kwargs: opened.append(str(name)) or real(name, *args, **kwargs)
    )
    monkeypatch.setattr(onnx, "load", lambda *args, **kwargs: pytest.fail("it was loaded"))
    assert "outside its folder, which is not opened" in refuse(path, tmp_path)
    assert str(secret) not in opened
    assert not (tmp_path / "copy.onnx").exists()


def test_what_is_no_onnx_file_is_said_to_be_none(tmp_path: Path) -> None:
    for name, content in {
        "text.onnx": b"hello, world\n" * 9,
        "empty.onnx": b"",
        "pickle.pt": pickle.dumps([1]),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "is not an ONNX file: export the network with torch.onnx.export" in refuse(
            tmp_path / name, tmp_path
        )
    whole = write_image_network(tmp_path / "a.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    assert "half.onnx" in refuse(tmp_path / "half.onnx", tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("data.pkl", b"...")
    assert "is a zip archive, as torch.save writes them" in refuse(tmp_path / "model.pt", tmp_path)
    assert "is not a file" in refuse(tmp_path / "nothing.onnx", tmp_path)
    assert "is not a file" in refuse(tmp_path, tmp_path)


def test_an_opset_from_the_future_is_named_with_what_would_do(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.onnx",
        [helper.make_node("Flatten", ["images"], ["features"])],
        IMAGES,
        FEATURES,
        opset=999,
    )
    assert "needs opset 999, this ONNX Runtime takes up to" in (sentence := refuse(path, tmp_path))
    assert "export it again with opset_version=17" in sentence


def test_an_operator_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    path = save_network(
        tmp_path / "a.onnx", [helper.make_node("Conjure", ["images"], ["features"])], IMAGES, FEATURES
    )
    sentence = refuse(path, tmp_path)
    assert "cannot be loaded by ONNX Runtime: " in sentence
    assert "Conjure" in sentence
    assert "Load model from" not in sentence


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate((2 << 30) + 1)
    assert "has 2,147,483,649 bytes with its weights, at most 2,147,483,648" in refuse(
        tmp_path / "a.onnx", tmp_path
    )
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    monkeypatch.setattr(network_file, "MOST_BYTES", 4096)
    path = write_external(tmp_path / "b.onnx", "weights.bin")
    assert "bytes with its weights, at most 4,096 are taken" in refuse(path, tmp_path)
