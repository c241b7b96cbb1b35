"""The exported encoder is the trained network, for any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from common.errors import BundleError
from encoder.inputs import load_preprocessing
from tests.training.runs import MakeConfig, export_run
from training.export import onnx_export
from training.loop.train import train
from training.run_folder.run_folder import Run


def test_the_encoder_gives_the_stored_embeddings_from_raw_files(
    run: Run, drawings: Path, tmp_path: Path
) -> None:
    difference = export_run(run, tmp_path / "encoder")
    assert difference <= 1e-5
    preprocessing = load_preprocessing(tmp_path / "encoder" / "preprocessing.json")
    session = onnxruntime.InferenceSession(tmp_path / "encoder" / "encoder.onnx")
    stored = run.load_embeddings("test")
    assert stored is not None
    for rows in ([0], list(range(5))):
        raw = [Image.open(drawings / str(stored.ids[row])) for row in rows]
        batch = preprocessing.prepare(raw)
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
    schedule = {"epochs": 1, "steps_per_epoch": 1, "patience": None}
    config = small(
        model={"backbone": model, "pooling": pooling, "embedding_dim": 4, **size}, schedule=schedule
    )
    assert export_run(train(config, tmp_path / "run"), tmp_path / "encoder") <= 1e-5


def test_a_difference_is_an_error_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(BundleError, match="differs from the trained one"):
        export_run(run, tmp_path / "encoder")
    assert list((tmp_path / "encoder").iterdir()) == []
