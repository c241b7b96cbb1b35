"""Small data sets and configurations that train in a second."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.config import Config
from tests.training.runs import MakeConfig
from training.loop.train import train
from training.run_folder.run_folder import Run


def draw(label: int, number: int, side: int = 12) -> Image.Image:
    """Black strokes on white that depend on the label, with a little noise."""
    pixels = np.full((side, side), 255, dtype=np.uint8)
    strokes = np.random.default_rng(label).random((side, side)) < 0.3
    pixels[strokes] = 0
    noise = np.random.default_rng([label, number]).random((side, side)) < 0.05
    pixels[noise] = 128
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 15 classes in 3 alphabets, 6 images each."""
    root = tmp_path_factory.mktemp("drawings")
    for label in range(15):
        folder = root / f"alphabet{label % 3}" / f"letter{label:02d}"
        folder.mkdir(parents=True)
        for number in range(6):
            draw(label, number).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def zipped(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files in a zip."""
    path = tmp_path_factory.mktemp("zipped") / "drawings.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(drawings.rglob("*.png")):
            archive.write(file, file.relative_to(drawings).as_posix())
    return path


@pytest.fixture(scope="session")
def small(drawings: Path) -> MakeConfig:
    """A configuration that trains on the drawings in a second; sections can be changed."""

    def make(**changes: object) -> Config:
        sections: dict[str, object] = {
            "data": {"path": str(drawings), "hierarchy": "path"},
            "model": {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 8},
            "loss": "multi_similarity",
            "sampler": {"batch_size": 16, "items_per_class": 2},
            "schedule": {"epochs": 2, "steps_per_epoch": 3, "patience": None},
        }
        return Config.model_validate({**sections, **changes})

    return make


@pytest.fixture(scope="session")
def finished(small: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs of three steps, to be read only."""
    return train(small(), tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture(scope="session")
def finished_with_views(small: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a run whose network joins eight views, to be read only."""
    model = {"backbone": "conv4", "widths": [8, 8], "strided_stem": True, "residuals": [0, 1]}
    config = small(model={**model, "views": 8, "embedding_dim": 64})
    return train(config, tmp_path_factory.mktemp("views") / "run").path


@pytest.fixture(params=["finished", "finished_with_views"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A copy of each of these runs, to be exported."""
    return Run.open(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "run"))


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
