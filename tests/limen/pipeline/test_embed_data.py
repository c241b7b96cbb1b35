"""Real encoders on real data: the figures that they are known to reach, and what a plain loop computes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from api_schemas.data_config import DataConfig
from api_schemas.wrap_config import EncoderConfig
from common.array_types import Float32s, RowIndices, Texts, UnitVectors
from encoder import Encoder
from limen.pipeline import embed_data
from limen.pipeline.embed_data import RawData
from limen.pipeline.stage_encoder import StagedEncoder, stage_encoder
from tests.conftest import ROOT, absent
from tests.encoder.wrapping.networks import write_image_network
from training.data.items import Items

MOBILENET = ROOT / "configs" / "encoders" / "mobilenet_v2.yaml"
FIRST_UNSEEN = 41  # products of Grocery Store from here on are unseen by convention


@pytest.fixture(scope="module")
def encoders(datasets: Path) -> Path:
    folder = datasets / "encoders"
    if not folder.is_dir():
        absent(f"the folder of encoders {folder}")
    return folder


@pytest.fixture(scope="module")
def mobilenet(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> StagedEncoder:
    path = str(encoders / "mobilenet_v2_imagenet.onnx")
    return stage_encoder(
        EncoderConfig(path=path, preprocessing=str(MOBILENET)), tmp_path_factory.mktemp("mobilenet")
    )


def unpack_photos(datasets: Path, root: Path, most: int | None = None) -> list[Path]:
    """The photos of unseen products in class folders, at most so many."""
    lines = [
        line.split(",")
        for part in ("train", "val", "test")
        for line in (datasets / "grocery_store" / f"{part}.txt").read_text().splitlines()
    ]
    names = [name.strip() for name, product, _ in lines if int(product) >= FIRST_UNSEEN]
    files = []
    with zipfile.ZipFile(datasets / "grocery_store" / "images_88px.zip") as archive:
        for name in names[:: 1 if most is None else len(names) // most]:
            part, *_, label, file = name.split("/")
            (root / label).mkdir(exist_ok=True, parents=True)
            files.append(root / label / f"{part}-{file}")
            files[-1].write_bytes(archive.read(name))
    return files


def test_images_that_come_with_a_package_are_brought_to_the_encoders_size(tmp_path: Path) -> None:
    network = write_image_network(tmp_path / "net.onnx", ("n", 3, 12, 12))
    staged = stage_encoder(EncoderConfig(path=str(network), preprocessing={"preset": "unit"}), tmp_path)
    data = RawData(DataConfig.model_validate({"builtin": "digits"}), staged.encoder)
    items = data.embed()
    assert (len(items), items.vectors.shape[1]) == (1797, 4)
    picture = Image.fromarray(data.items.inputs[5, 0])
    np.testing.assert_allclose(staged.encoder.encode([picture])[0], items.vectors[5], atol=1e-6)


def compute_recall(vectors: UnitVectors, labels: Texts) -> float:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -2)
    return float((labels[similarities.argmax(axis=1)] == labels).mean())


def test_photos_are_embedded_as_a_plain_loop_does(
    datasets: Path, encoders: Path, mobilenet: StagedEncoder, tmp_path: Path
) -> None:
    files = unpack_photos(datasets, tmp_path, 70)
    got = RawData(DataConfig(path=str(tmp_path)), mobilenet.encoder).embed()
    session = onnxruntime.InferenceSession(encoders / "mobilenet_v2_imagenet.onnx")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = dict(zip(got.ids.tolist(), got.vectors, strict=True))
    assert len(rows) == len(files)
    for file in files[::7]:
        image = (
            Image.open(io.BytesIO(file.read_bytes()))
            .convert("RGB")
            .resize((128, 128), Image.Resampling.BICUBIC)
        )
        pixels = ((np.asarray(image) / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        expected = session.run(None, {"images": pixels})[0][0]
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(rows[file.relative_to(tmp_path).as_posix()], expected, atol=1e-5)


def test_a_few_blocks_are_prepared_ahead_and_no_more(
    datasets: Path, mobilenet: StagedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = unpack_photos(datasets, tmp_path, 60)
    monkeypatch.setattr(embed_data, "BLOCK_BYTES", 4 * 128 * 128 * 3 * 2)  # two inputs
    prepared, embedded, ahead = [], [], []
    prepare, embed = RawData._prepare, Encoder.embed

    def record_prepare(self: RawData, rows: RowIndices) -> tuple[Float32s, Items]:
        prepared.append(len(rows))
        ahead.append(len(prepared) - len(embedded))
        return prepare(self, rows)

    def record_embed(self: Encoder, rows: Float32s, first: int = 0) -> Float32s:
        embedded.append(len(rows))
        return embed(self, rows, first)

    monkeypatch.setattr(RawData, "_prepare", record_prepare)
    monkeypatch.setattr(Encoder, "embed", record_embed)
    got = RawData(DataConfig(path=str(tmp_path)), mobilenet.encoder).embed(tmp_path / "vectors.npy")
    assert len(got) == len(files) == sum(embedded)
    assert isinstance(got.vectors.base, np.memmap) or isinstance(got.vectors, np.memmap)
    assert max(prepared) == 2
    assert max(ahead) <= embed_data.BLOCKS_AHEAD + 1


@pytest.mark.full
def test_frozen_mobilenet_names_unseen_products(
    datasets: Path, mobilenet: StagedEncoder, tmp_path: Path
) -> None:
    unpack_photos(datasets, tmp_path)
    items = RawData(DataConfig(path=str(tmp_path)), mobilenet.encoder).embed(tmp_path / "vectors.npy")
    assert (len(items), len(items.classes)) == (2370, 40)
    assert compute_recall(items.vectors, items.labels) == pytest.approx(0.922, abs=5e-4)


def test_static_embeddings_name_intents(datasets: Path, encoders: Path, tmp_path: Path) -> None:
    path = datasets / "clinc150" / "data_full.json"
    if not path.is_file():
        absent(str(path))
    texts = json.loads(path.read_text())["test"]
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts)
    )
    keys = {"preset": "static", "tokenizer": str(encoders / "wordllama_tokenizer.json")}
    table = str(encoders / "wordllama_256.safetensors")
    staged = stage_encoder(EncoderConfig(path=table, preprocessing=keys), tmp_path)
    data = DataConfig(kind="text", path=str(tmp_path / "texts.jsonl"))
    items = RawData(data, staged.encoder).embed()
    assert (len(items), staged.encoder.dim) == (4500, 256)
    assert compute_recall(items.vectors, items.labels) == pytest.approx(0.858, abs=5e-4)
