"""Commands and configurations of the README and the guides do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from api_schemas.config import Config
from tests.conftest import ROOT
from tests.encoder.wrapping.networks import write_image_network, write_spectrogram_network
from tests.end_to_end.shell import run_shell
from tests.limen.pipeline.test_wrap_encoder import paint, write_sentence_transformer, write_texts
from tests.voices import write_voices


def read_commands(heading: str) -> str:
    """The code block of a README section, without the service that would not end."""
    section = (ROOT / "README.md").read_text().split(f"## {heading}\n")[1]
    block = section.split("```")[1]
    return re.sub(r"(&&)?\s*limen serve \S+", "", block)


def test_your_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in range(30):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True)
        shape = rng.integers(0, 2, (8, 8), dtype=np.uint8).repeat(2, 0).repeat(2, 1) * 200
        for number in range(4):
            noisy = shape + rng.integers(0, 50, shape.shape, dtype=np.uint8)
            Image.fromarray(noisy).save(folder / f"{number}.jpg")
    run_shell(
        read_commands("Your images").replace("photos.yaml ", "photos.yaml --set schedule.epochs=2 "), tmp_path
    )
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "bundles" / "photos" / "encoder.onnx").is_file()


def test_your_photos_and_an_encoder(tmp_path: Path) -> None:
    for label in range(8):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True)
        for number in range(4):
            paint(label * 10 + number).save(tmp_path / "photos" / f"class{label}" / f"{number}.jpg")
    write_image_network(tmp_path / "mobilenet_v2.onnx")
    write_sentence_transformer(tmp_path / "all-MiniLM-L6-v2", "pooling_mode_mean_tokens")
    write_texts(tmp_path / "texts.jsonl")
    write_spectrogram_network(tmp_path / "voice_ge2e.onnx", ("n", "t", 40), mels=40)
    write_voices(tmp_path / "voices", speakers=6, recordings=4, seconds=1.2)
    run_shell(read_commands("Your photos and an encoder"), tmp_path)
    for name in ("photos", "texts"):
        assert (tmp_path / "bundles" / name / "encoder.onnx").is_file()


def test_your_embeddings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(80), 8)
    centres = rng.normal(size=(80, 48))
    embeddings = centres[labels] + 0.4 * rng.normal(size=(640, 48))
    np.savez(tmp_path / "vectors.npz", embeddings=embeddings, labels=labels)
    said = run_shell(read_commands("Your embeddings"), tmp_path)
    assert "The threshold: cosine similarity >= 0.75" in said
    assert (tmp_path / "bundles" / "vectors" / "index.faiss").is_file()


@pytest.mark.parametrize("page", ["docs/training.md"])
def test_configurations_in_the_guides_are_valid(page: str) -> None:
    pytest.importorskip("torch")
    from training.objective.objective import Objective

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        Objective(Config.model_validate(yaml.safe_load(block)), 12)
