"""What a wrapped encoder must do: the same for one input and for many, and never NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from common.errors import InputError
from encoder import Encoder
from encoder.network import Network
from encoder.wrapping.check_encoder import CheckedEncoder, check_encoder
from encoder.wrapping.fit_network import fit_network
from encoder.wrapping.network_file import open_network
from encoder.wrapping.preprocessing_file import parse_preprocessing
from tests.encoder.wrapping.networks import FLOAT, save_network

ROWS = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
IDS = np.array([f"item-{row}" for row in range(64)])


def check(tmp_path: Path, nodes: list[Any], rows: np.ndarray = ROWS, **weights: np.ndarray) -> CheckedEncoder:
    path = save_network(
        tmp_path / "a.onnx", nodes, [("x", FLOAT, ("n", 6))], [("y", FLOAT, ("m", "d"))], weights
    )
    network = open_network(path, "a.onnx")
    preprocessing, interface = fit_network(parse_preprocessing({"kind": "vector"}, "prep.yaml"), network)
    encoder = Encoder(Network(network.session, preprocessing, interface), preprocessing)
    return check_encoder(encoder, rows, IDS[: len(rows)], "a.onnx")


def test_an_encoder_that_sees_each_input_by_itself_passes(tmp_path: Path) -> None:
    checked = check(tmp_path, [helper.make_node("Neg", ["x"], ["y"])])
    assert (checked.inputs, checked.difference, checked.is_collapsed) == (64, 0.0, False)


def test_normalisation_over_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], axes=[0], keepdims=1),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    with pytest.raises(
        InputError, match=r"a\.onnx answers another vector to an input alone than among 64 .*model\.eval"
    ):
        check(tmp_path, nodes)


def test_zero_is_no_answer_but_a_blank_input_may_have_it(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[7] = 0
    assert check(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], rows).inputs == 63
    with pytest.raises(InputError, match=r"a\.onnx answers zero to all of 64 inputs"):
        check(tmp_path, [helper.make_node("Sub", ["x", "x"], ["y"])])


def test_nan_is_refused_and_names_the_item(tmp_path: Path) -> None:
    rows = np.abs(ROWS)
    rows[5] *= -1
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], axes=[1], keepdims=1),
        helper.make_node("Log", ["top"], ["log"]),
        helper.make_node("Add", ["x", "log"], ["y"]),
    ]
    with pytest.raises(InputError, match=r"answers NaN or infinity to 'item-5' \(1 of 64 inputs\)"):
        check(tmp_path, nodes, rows)


def test_a_batch_that_is_fixed_inside_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    with pytest.raises(
        InputError, match=r"takes one input and fails on 64 together: .*network: \{batch: 1\}"
    ):
        check(tmp_path, nodes, shape=np.array([1, 6]))


def test_a_dimension_that_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    with pytest.raises(InputError, match=r"answers \[1, 384\] to 64 inputs and vectors of 6 numbers to one"):
        check(tmp_path, nodes, shape=np.array([1, -1]))


def test_a_network_that_does_not_see_its_input_is_told(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "little"], ["less"]),
        helper.make_node("Add", ["less", "one"], ["y"]),
    ]
    checked = check(tmp_path, nodes, little=np.float32([1e-3]), one=np.float32([1.0]))
    assert checked.is_collapsed
    assert not check(tmp_path, nodes, ROWS[:1], little=np.float32([1e-3]), one=np.float32([1.0])).is_collapsed
