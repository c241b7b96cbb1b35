"""Real images from the archive to a decision: what is trained is what is served."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embeddings.similarity import compute_pair_similarities
from encoder.encoder import Encoder
from index.gallery.gallery import Gallery
from tests.conftest import ROOT
from tests.end_to_end.test_embeddings_to_decision import run

CONFIG = ROOT / "configs" / "omniglot.yaml"


@dataclass(frozen=True)
class Trained:
    """A short run on handwritten characters, and its bundle."""

    folder: Path
    drawings: Path  # the archive of the test


@pytest.fixture(
    scope="module", params=["some alphabets", pytest.param("all alphabets", marks=pytest.mark.full)]
)
def trained(
    request: pytest.FixtureRequest, datasets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp("omniglot")
    archives = {part: datasets / "omniglot" / f"images_{part}.zip" for part in ("background", "evaluation")}
    if request.param == "some alphabets":
        for part, alphabets in (("background", 8), ("evaluation", 4)):
            archives[part] = cut_alphabets(archives[part], folder / f"{part}.zip", alphabets)
    quick = ("schedule.epochs=5", "model.widths=[16, 32, 32, 32]", "data.image_size=20")
    sources = (f"data.path={archives['background']}", f"data.test_path={archives['evaluation']}")
    flags = [part for value in (*quick, *sources) for part in ("--set", value)]
    run("train", CONFIG, *flags, "--out", folder / "run")
    # one kind of score and one target: calibration is tested elsewhere, on less data
    cheap = ("--set", "calibration.score=cosine", "--set", "calibration.targets={far: 0.01}")
    run("export", folder / "run", "--out", folder / "bundle", *cheap)
    return Trained(folder, archives["evaluation"])


def cut_alphabets(source: Path, target: Path, alphabets: int) -> Path:
    """The first alphabets of an archive."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as part:
        chosen = sorted({name.split("/")[1] for name in _list_drawings(archive)})[:alphabets]
        for name in _list_drawings(archive):
            if name.split("/")[1] in chosen:
                part.writestr(name, archive.read(name))
    return target


def measure_recall_of_pixels(drawings: Path) -> float:
    """Share of drawings whose most similar one, pixel by pixel, is of their character."""
    with zipfile.ZipFile(drawings) as archive:
        names = _list_drawings(archive)
        images = [Image.open(io.BytesIO(archive.read(name))).convert("L").resize((20, 20)) for name in names]
    pixels = 255.0 - np.stack([np.asarray(image, dtype=np.float32).ravel() for image in images])
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    characters = np.array([name.rpartition("/")[0] for name in names])
    right = 0
    for start in range(0, len(pixels), 1000):
        similarities = pixels[start : start + 1000] @ pixels.T
        similarities[np.arange(len(similarities)), start + np.arange(len(similarities))] = -1.0
        right += int((characters[similarities.argmax(1)] == characters[start : start + 1000]).sum())
    return right / len(pixels)


def test_unseen_alphabets_are_told_apart(trained: Trained) -> None:
    report = json.loads(run("evaluate", trained.folder / "bundle", "--json"))
    with zipfile.ZipFile(trained.drawings) as archive:
        names = _list_drawings(archive)
    assert report["counts"]["classes"] == len({name.rpartition("/")[0] for name in names}) >= 98
    assert report["counts"]["items"] == len(names)
    assert report["retrieval"]["recall_at_1"] > measure_recall_of_pixels(trained.drawings)
    assert 0 < report["consistency"]["opis_debiased"] < report["consistency"]["opis"]


def test_a_raw_image_finds_its_own_row(trained: Trained) -> None:
    run("verify", trained.folder / "bundle")
    encoder = Encoder.open(trained.folder / "bundle")
    gallery = Gallery.open(trained.folder / "bundle")
    with zipfile.ZipFile(trained.drawings) as archive:
        names = _list_drawings(archive)[::300]
        vectors = encoder.encode([archive.read(name) for name in names])
    stored = np.stack([gallery.view.get_vector(name) for name in names])
    assert [hits[0].id for hits in gallery.search(stored, 1)] == names
    assert compute_pair_similarities(vectors, stored).min() > 1 - 1e-5
    gallery.close()


def _list_drawings(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".png")]
