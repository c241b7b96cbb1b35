"""The exported encoder is the trained network, for any batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from api_schemas.config import Config
from api_schemas.errors import BundleError
from encoder.preprocessing import Preprocessing
from training import export
from training.data.load import load_data
from training.export import export_encoder
from training.run import Run, train

MakeConfig = Callable[..., Config]


@pytest.fixture
def run(small: MakeConfig, tmp_path: Path) -> Run:
    return train(small(), tmp_path / "run")


def test_the_encoder_gives_the_stored_embeddings_from_raw_files(
    run: Run, drawings: Path, tmp_path: Path
) -> None:
    difference = export_encoder(run, tmp_path / "encoder")
    assert difference <= 1e-5
    preprocessing = Preprocessing.load(tmp_path / "encoder" / "preprocessing.json")
    session = onnxruntime.InferenceSession(tmp_path / "encoder" / "encoder.onnx")
    stored = run.embeddings("test")
    assert stored is not None
    for rows in ([0], list(range(5))):
        raw = [Image.open(drawings / str(stored.ids[row])) for row in rows]
        batch = np.stack([preprocessing.image_array(image) for image in raw])
        served = session.run(None, {"input": batch})[0]
        np.testing.assert_allclose(served, stored.vectors[rows], atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(served, axis=1), 1, atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == [
        "encoder.onnx",
        "preprocessing.json",
    ]


@pytest.mark.parametrize(
    ("model", "pooling"), [("resnet", "gem"), ("resnet", "max"), ("mlp", "flat"), ("linear", "flat")]
)
def test_every_backbone_can_be_exported(small: MakeConfig, tmp_path: Path, model: str, pooling: str) -> None:
    size = {"resnet": {"widths": [4, 4], "blocks": [1, 1]}, "mlp": {"hidden": [8]}, "linear": {}}[model]
    config = small(model={"backbone": model, "pooling": pooling, "embedding_dim": 4, **size})
    assert export_encoder(train(config, tmp_path / "run"), tmp_path / "encoder") <= 1e-5


def test_a_difference_is_an_error_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(BundleError, match="differs from the trained one"):
        export_encoder(run, tmp_path / "encoder")
    assert list((tmp_path / "encoder").iterdir()) == []


def test_training_and_serving_prepare_alike(drawings: Path, small: MakeConfig) -> None:
    import torch

    from training.embed import Prepare

    splits = load_data(small().data)
    prepared = Prepare(splits.preprocessing, torch.device("cpu"))(splits.train.inputs[:4]).numpy()
    raw = [Image.open(drawings / str(name)) for name in splits.train.ids[:4]]
    served = np.stack([splits.preprocessing.image_array(image) for image in raw])
    np.testing.assert_allclose(prepared, served, atol=1e-6)
