"""A head on an encoder that exists as ONNX: trained on its features, and exported with it as one network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ConfigError
from encoder.encoder import Encoder
from tests.training.runs import MakeConfig
from training.loop.train import train
from training.run_folder.run_folder import Run


@pytest.fixture
def encoder(finished: Path) -> Path:
    """The encoder folder of a run."""
    return Run.open(finished).ensure_encoder()


def test_a_head_is_trained_exported_and_served_in_one_file(
    small: MakeConfig, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "cache"))
    model = {"backbone": f"onnx:{encoder}", "train": "head", "head_start": "whitened", "embedding_dim": 6}
    run = train(small(model=model), tmp_path / "run")
    assert run.load_preprocessing() == Run.open(encoder.parent).load_preprocessing()
    moved = run.path.rename(tmp_path / "elsewhere")  # it needs neither its place nor what it began from
    run = Run.open(moved)
    folder = run.ensure_encoder()
    stored = run.load_embeddings("test")
    assert stored is not None
    assert stored.dimension == 6
    images = [Image.open(Path(str(run.config.data.path)) / item) for item in stored.ids.tolist()]
    np.testing.assert_allclose(Encoder.open(folder).encode(images), stored.vectors, atol=1e-5)
    np.testing.assert_allclose(Encoder.open(folder).encode(images[:1]), stored.vectors[:1], atol=1e-5)


def test_what_cannot_be_trained_is_one_sentence(small: MakeConfig, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.train: no gradients pass through onnx:.*: set it to head"):
        train(small(model={"backbone": f"onnx:{encoder}", "embedding_dim": 6}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"onnx:.*empty has no encoder\.onnx: give a bundle"):
        train(small(model={"backbone": f"onnx:{tmp_path / 'empty'}", "train": "head"}), tmp_path / "run")
    texts = {"kind": "text", "path": "texts.jsonl"}
    with pytest.raises(ConfigError, match="takes images, the data are texts"):
        train(small(model={"backbone": f"onnx:{encoder}", "train": "head"}, data=texts), tmp_path / "run")
