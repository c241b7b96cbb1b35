"""Where a network is computed: where it was asked for if that is right, else on the CPU, which is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from common.array_types import Float32s, Float64s
from encoder import Encoder, network
from encoder.network import Network
from tests.encoder.encoders import GREY, write_linear_encoder

CUDA = "CUDAExecutionProvider"


class ElsewhereSession:
    """A CPU session that says that it computes elsewhere, and differs by ``shift``."""

    shift = 0.0

    def __init__(self, path: Path, options: Any, providers: list[Any]) -> None:
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._providers = [one if isinstance(one, str) else one[0] for one in providers]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def get_providers(self) -> list[str]:
        return self._providers

    def run(self, names: Any, feeds: Any, options: Any) -> Any:
        rows = self._session.run(names, feeds, options)[0]
        is_elsewhere = self._providers[0] != "CPUExecutionProvider"
        return [
            rows + np.float32(self.shift) * is_elsewhere * np.linspace(-1, 1, rows.shape[1], dtype=np.float32)
        ]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has CUDA."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(network, "InferenceSession", ElsewhereSession)


def test_a_provider_that_is_there_and_right_computes(tmp_path: Path, cuda: None) -> None:
    write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path, provider="cuda")
    assert (encoder.provider, encoder.provider_note) == ("cuda", None)
    plain = Encoder.open(tmp_path)
    assert plain.provider == "cpu"
    rows = encoder.preprocessing.draw_samples(5)
    np.testing.assert_array_equal(encoder.embed(rows), plain.embed(rows))


def test_other_vectors_are_not_taken(tmp_path: Path, cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = write_linear_encoder(tmp_path, GREY)
    monkeypatch.setattr(ElsewhereSession, "shift", 0.5)
    encoder = Encoder.open(tmp_path, provider="cuda")
    assert encoder.provider == "cpu"
    assert encoder.provider_note is not None
    assert f"{CUDA} makes vectors that differ by " in encoder.provider_note
    rows = encoder.preprocessing.draw_samples(3)
    expected = rows.reshape(3, -1) @ weights
    np.testing.assert_allclose(
        encoder.embed(rows), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
    )


def test_one_that_fails_is_not_taken(tmp_path: Path, cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_linear_encoder(tmp_path, GREY)
    real = Network.run

    def run(self: Network, prepared: Float32s) -> Float64s:
        if self._session.get_providers()[0] == CUDA and len(prepared) > 1:
            raise RuntimeError("out of memory\nat 0x123")
        return real(self, prepared)

    monkeypatch.setattr(Network, "run", run)
    encoder = Encoder.open(tmp_path, provider="cuda")
    assert encoder.provider_note == f"{CUDA} failed (out of memory): the CPU computes the encoder."


def test_one_that_is_not_installed_is_said(tmp_path: Path) -> None:
    write_linear_encoder(tmp_path, GREY)
    encoder = Encoder.open(tmp_path, provider="coreml")
    assert encoder.provider == "cpu"
    assert str(encoder.provider_note).startswith(
        "CoreMLExecutionProvider is not in this ONNX Runtime, which has "
    )


def test_one_whose_libraries_are_missing_is_said(
    tmp_path: Path, cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_linear_encoder(tmp_path, GREY)
    monkeypatch.setattr(ElsewhereSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    note = Encoder.open(tmp_path, provider="cuda").provider_note
    assert note == f"{CUDA} could not be started, for want of its libraries: the CPU computes the encoder."
