"""``limen data preview``: what the network will see, of a run's or a wrapped encoder's preprocessing too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.preprocessing import ImageInput
from encoder.inputs.image_input import ImagePreprocessing
from tests.encoder.wrapping.networks import write_image_network
from tests.limen.conftest import Limen
from training.run_folder.run_folder import Run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of one brightness each, wide images."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for label in range(10):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(2):
            picture = np.full((40, 120, 3), 20 * label + number, dtype=np.uint8)
            picture[:, 60:] = 255 - picture[:, 60:]
            Image.fromarray(picture).save(folder / f"class{label}" / f"{number}.png")
    return folder


def test_the_preprocessing_of_a_wrapped_encoder_is_shown(limen: Limen, photos: Path, tmp_path: Path) -> None:
    network = write_image_network(tmp_path / "network.onnx", ("n", 3, 32, 32))
    (tmp_path / "prep.yaml").write_text("preset: imagenet\nresize: crop\n")
    made = limen(
        "wrap",
        network,
        "--data",
        photos,
        "--preprocessing",
        tmp_path / "prep.yaml",
        "--out",
        tmp_path / "bundle",
    )
    assert made.code == 0, made.err
    plain = limen("data", "preview", photos, "--out", tmp_path / "a.png", "--views", 0)
    backbone = f"model={{backbone: 'onnx:{tmp_path / 'bundle'}', train: head}}"
    seen = limen("data", "preview", photos, "--out", tmp_path / "b.png", "--views", 0, "--set", backbone)
    assert (plain.code, seen.code) == (0, 0), plain.err + seen.err
    assert "8 images of 1 x 64 x 64" in plain.err
    assert "8 images of 3 x 32 x 32" in seen.err


def test_the_preprocessing_of_a_run_is_shown(limen: Limen, photos: Path, tmp_path: Path) -> None:
    settings = ["data.image_size=24", "schedule.epochs=1", "schedule.steps_per_epoch=1", "data.split.test=0"]
    config = tmp_path / "photos.yaml"
    config.write_text(f"data: {{path: {photos}}}\nloss: triplet\n")
    trained = limen(
        "train", config, "--out", tmp_path / "run", *(part for key in settings for part in ("--set", key))
    )
    assert trained.code == 0, trained.err
    shown = limen("data", "preview", config, "--from", tmp_path / "run", "--out", tmp_path / "a.png")
    assert shown.code == 0, shown.err
    preprocessing = Run.open(tmp_path / "run").load_preprocessing()
    assert isinstance(preprocessing, ImagePreprocessing)
    assert isinstance(preprocessing.rule, ImageInput)
    assert (preprocessing.rule.height, preprocessing.rule.width) == (24, 24)
    assert "8 images of 1 x 24 x 24" in shown.err
    refused = limen("data", "preview", config, "--from", tmp_path / "none", "--out", tmp_path / "a.png")
    assert (refused.code, str(tmp_path / "none") in refused.err) == (2, True)
