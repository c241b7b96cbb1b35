"""``limen attach-encoder``: an encoder comes to a bundle of vectors, if it is the one that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import limen as library
from api_schemas.report import Report
from common.errors import InputError
from encoder import Encoder
from index.bundle import read_bundle, verify_bundle
from index.gallery.gallery import Gallery
from limen.client import Client
from tests.encoder.wrapping.networks import draw_weights, write_image_network
from tests.limen.conftest import Limen
from tests.limen.pipeline.test_wrap_encoder import paint, read_uri
from tests.service.bundles import serve

PREPARED = ("--preprocessing", "unit", "--set", "encoder.preprocessing.size=24")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in range(8):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True)
        for number in range(4):
            paint(label * 10 + number).save(tmp_path / "photos" / f"class{label}" / f"{label}-{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def vectors(limen: Limen, photos: Path, tmp_path: Path) -> Path:
    """A bundle of vectors that somebody made elsewhere, under the files' names."""
    files = sorted(photos.rglob("*.png"))
    rows = [np.asarray(_shrink(file), np.float64).mean(axis=(0, 1)) / 255 @ draw_weights(3) for file in files]
    noise = np.random.default_rng(0).normal(0, 1e-5, (len(files), 4))
    np.savez(
        tmp_path / "vectors.npz",
        embeddings=np.array(rows) + noise,
        labels=[file.parent.name for file in files],
        ids=[file.stem for file in files],
    )
    outcome = limen(
        "build", tmp_path / "vectors.npz", "--out", tmp_path / "bundle",
        "--set", "calibration.targets={fpir: 0.1, far: 0.1}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return tmp_path / "bundle"


def _shrink(file: Path) -> object:
    from PIL import Image

    return Image.open(file).resize((24, 24), Image.Resampling.BILINEAR)


def test_a_bundle_of_vectors_takes_pictures_then(
    limen: Limen, photos: Path, vectors: Path, tmp_path: Path
) -> None:
    network = write_image_network(tmp_path / "net.onnx")
    old = read_bundle(vectors)
    outcome = limen(
        "attach-encoder", vectors, network, "--data", photos, *PREPARED, "--out", tmp_path / "new"
    )
    assert outcome.code == 0, outcome.err
    assert "Compared 32 items: every vector is made again to 0.01; the worst is '" in outcome.err
    new = read_bundle(tmp_path / "new")
    assert verify_bundle(tmp_path / "new").model_hash == new.manifest.model_hash != old.manifest.model_hash
    assert new.manifest.data_hash == old.manifest.data_hash
    thresholds = {(point.name, point.threshold) for point in old.points.values()}
    assert {(point.name, point.threshold) for point in new.points.values()} == thresholds
    assert new.points[str(new.manifest.operating_points.match)].name.startswith("fpir")
    assert Report.load(tmp_path / "new" / "report.json").model_hash == new.manifest.model_hash
    assert verify_bundle(vectors).encoder is None
    file = photos / "class3" / "3-1.png"
    with serve(tmp_path / "new") as address, Client(address) as client:
        answer = client.match([{"input": read_uri(file)}]).results[0]
    assert answer.similarity == pytest.approx(1, abs=1e-4)
    again = limen("attach-encoder", tmp_path / "new", network, "--data", photos, *PREPARED)
    assert again.code == 2
    assert "has an encoder already" in again.err


def test_in_place_the_old_bundle_stays_until_the_new_one_is_whole(
    limen: Limen, photos: Path, vectors: Path, tmp_path: Path
) -> None:
    (photos / "class7" / "7-3.png").unlink()  # a part of the data is enough
    outcome = limen(
        "attach-encoder", vectors, write_image_network(tmp_path / "net.onnx"), "--data", photos, *PREPARED
    )
    assert outcome.code == 0, outcome.err
    verify_bundle(vectors)
    stored = Gallery.open(vectors).get("0-0")
    assert stored is not None
    row = Encoder.open(vectors).encode([(photos / "class0" / "0-0.png").read_bytes()])[0]
    np.testing.assert_allclose(row, stored.vector, atol=1e-3)


def test_the_same_from_python(photos: Path, vectors: Path, tmp_path: Path) -> None:
    network = write_image_network(tmp_path / "net.onnx")
    made = library.attach_encoder(
        vectors, network, photos, preprocessing={"preset": "unit", "size": 24}, out=tmp_path / "new"
    )
    assert verify_bundle(tmp_path / "new").model_hash == made.model_hash
    with pytest.raises(InputError, match="does not make the vectors of this bundle"):
        library.attach_encoder(vectors, network, photos, preprocessing={"preset": "clip", "size": 24})


def test_another_encoder_or_preprocessing_is_refused_with_the_worst(
    limen: Limen, photos: Path, vectors: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in vectors.rglob("*") if path.is_file()}
    network = write_image_network(tmp_path / "net.onnx")
    wrong = ("--preprocessing", "imagenet", "--set", "encoder.preprocessing.size=24")
    outcome = limen("attach-encoder", vectors, network, "--data", photos, *wrong)
    assert outcome.code == 2
    sentence = outcome.err.strip().splitlines()[-1]
    assert "does not make the vectors of this bundle: 3" in sentence
    assert "the worst is '" in sentence
    assert "(similarity " in sentence
    outcome = limen("attach-encoder", vectors, network, "--data", photos, *wrong, "--tolerance", "2")
    assert outcome.code == 0  # whoever says so
    for path, content in before.items():
        if path.name in ("vectors.npy", "items.parquet"):
            assert path.read_bytes() == content


def test_data_of_other_items_is_refused(limen: Limen, photos: Path, vectors: Path, tmp_path: Path) -> None:
    for file in list(photos.rglob("*.png")):
        file.rename(file.with_name(f"other-{file.name}"))
    outcome = limen(
        "attach-encoder", vectors, write_image_network(tmp_path / "net.onnx"), "--data", photos, *PREPARED
    )
    assert outcome.code == 2
    assert "its ids are such as '0-0', those of the data such as 'class0/other-0-0.png'" in outcome.err
    assert not list(tmp_path.glob(".bundle*"))
