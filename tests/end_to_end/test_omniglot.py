"""Real images from the archive to a decision: what is trained is what is served."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from embeddings.similarity import compute_pair_similarities
from encoder.encoder import Encoder
from index.gallery.gallery import Gallery
from tests.conftest import ROOT
from tests.end_to_end.test_embeddings_to_decision import run

CONFIG = ROOT / "configs" / "omniglot.yaml"


@pytest.fixture(scope="module")
def folder(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on handwritten characters, and its bundle."""
    folder = tmp_path_factory.mktemp("omniglot")
    background, evaluation = (
        datasets / "omniglot" / f"images_{part}.zip" for part in ("background", "evaluation")
    )
    quick = ("schedule.epochs=2", "schedule.minutes=3", "model.widths=[16, 32, 32, 32]", "data.image_size=20")
    sources = (f"data.path={background}", f"data.test_path={evaluation}")
    flags = [part for value in (*quick, *sources) for part in ("--set", value)]
    run("train", CONFIG, *flags, "--out", folder / "run")
    # one kind of score and one target: calibration is tested elsewhere, on less data
    cheap = ("--set", "calibration.score=cosine", "--set", "calibration.targets={far: 0.01}")
    run("export", folder / "run", "--out", folder / "bundle", *cheap)
    return folder


def test_unseen_alphabets_are_told_apart(folder: Path) -> None:
    report = json.loads(run("evaluate", folder / "bundle", "--json"))
    assert report["counts"]["classes"] == 659
    assert report["counts"]["items"] == 13_180
    assert report["retrieval"]["recall_at_1"] > 0.3  # raw pixels at this size reach 0.29
    assert 0 < report["consistency"]["opis_debiased"] < report["consistency"]["opis"]


def test_a_raw_image_finds_its_own_row(folder: Path, datasets: Path) -> None:
    run("verify", folder / "bundle")
    encoder = Encoder.open(folder / "bundle")
    gallery = Gallery.open(folder / "bundle")
    names = [
        gallery.search(gallery.view.get_vector(name)[None], 1)[0][0].id for name in _read_names(datasets)
    ]
    assert names == _read_names(datasets)
    with zipfile.ZipFile(datasets / "omniglot" / "images_evaluation.zip") as archive:
        vectors = encoder.encode([archive.read(name) for name in names])
    stored = np.stack([gallery.view.get_vector(name) for name in names])
    assert compute_pair_similarities(vectors, stored).min() > 1 - 1e-5
    gallery.close()


def _read_names(datasets: Path) -> list[str]:
    with zipfile.ZipFile(datasets / "omniglot" / "images_evaluation.zip") as archive:
        return [name for name in archive.namelist() if name.endswith(".png")][::2000]
