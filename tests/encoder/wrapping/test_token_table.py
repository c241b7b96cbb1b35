"""Static token embeddings: the mean of a text's rows, by a loop and by the network that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.errors import InputError
from encoder.wrapping.network_file import open_network
from encoder.wrapping.token_table import write_token_table


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_are_summed_where_there_are_tokens(tmp_path: Path, dtype: type) -> None:
    table = np.random.default_rng(0).normal(size=(9, 5)).astype(dtype)
    save_file({"embedding.weight": table, "scale": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    write_token_table(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    session = open_network(tmp_path / "a.onnx", "a").session
    ids = np.array([[1, 2, 8], [4, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 0, 0]], dtype=np.float32)
    got = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    expected = [sum(table[row].astype(np.float64) for row in (1, 2, 8)), table[4]]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_which_matrix_is_meant_must_be_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones((3, 2), np.float32), "b": np.full((4, 2), 2, np.float32)}, path)
    with pytest.raises(InputError, match=r"holds 2 matrices of 2 tensors: weights alone are no network"):
        write_token_table(path, tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"has no matrix 'c'; it has a, b"):
        write_token_table(path, tmp_path / "a.onnx", "c")
    write_token_table(path, tmp_path / "a.onnx", "b")
    assert open_network(tmp_path / "a.onnx", "a").outputs[0].dims == (None, 2)


def test_damaged_and_useless_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"not a table at all")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        write_token_table(path, tmp_path / "a.onnx")
    save_file({"a": np.ones((3, 2), np.int64)}, path)
    with pytest.raises(InputError, match=r"the table 'a' holds int64, expected float16 or float32"):
        write_token_table(path, tmp_path / "a.onnx")
    save_file({"a": np.full((3, 2), np.nan, np.float32)}, path)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        write_token_table(path, tmp_path / "a.onnx")
