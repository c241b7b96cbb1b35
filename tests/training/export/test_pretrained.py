"""Networks of transformers and timm as they are, to ONNX: what torch computes is what is served."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from api_schemas.preprocessing import ImageInput
from api_schemas.wrap_config import EncoderConfig
from encoder.encoder import Encoder
from limen.pipeline.stage_encoder import stage_encoder
from tests.encoder.wrapping.networks import write_tokenizer


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture
def bert(transformers: Any, tmp_path: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    network = transformers.BertModel(shape).eval()
    network.save_pretrained(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert" / "tokenizer.json")
    return tmp_path / "bert", network


def compute_mean(network: nn.Module, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        states = network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    mean = states.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_texts_of_any_length_and_batch(bert: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, network = bert
    encoder = stage_encoder(EncoderConfig(path=f"hf:{folder}"), tmp_path).encoder
    texts = {"one two": [1, 3, 4, 2], "three four five six seven": [1, 5, 6, 7, 8, 9, 2], "eight": [1, 10, 2]}
    expected = np.stack([compute_mean(network, ids) for ids in texts.values()])
    np.testing.assert_allclose(encoder.encode(list(texts)), expected, atol=1e-5)
    np.testing.assert_allclose(Encoder.open(tmp_path).encode(list(texts)), expected, atol=1e-5)


def test_a_folder_of_sentence_transformers_with_weights_alone(
    bert: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    folder, network = bert
    kind = "sentence_transformers.models"
    described = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    encoder = stage_encoder(EncoderConfig(path=str(folder)), tmp_path).encoder
    np.testing.assert_allclose(encoder.encode(["one two"])[0], compute_mean(network, [1, 3, 4, 2]), atol=1e-5)


def test_images_are_prepared_as_the_folder_says(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=12,
        patch_size=4,
    )
    network = transformers.ViTModel(shape).eval()
    network.save_pretrained(tmp_path / "vit")
    said = {
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "resample": 3,
        "size": {"height": 12, "width": 12},
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = stage_encoder(EncoderConfig(path=f"hf:{tmp_path / 'vit'}"), tmp_path).encoder
    rule = encoder.preprocessing.rule
    assert isinstance(rule, ImageInput)
    assert (rule.interpolation, rule.height, rule.mean) == ("bicubic", 12, [0.5, 0.4, 0.3])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    pixels = np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC)) / 255
    prepared = torch.tensor((pixels - [0.5, 0.4, 0.3]) / [0.5, 0.6, 0.7], dtype=torch.float32)
    with torch.inference_mode():
        expected = network(pixel_values=prepared.permute(2, 0, 1)[None]).last_hidden_state[0, 0].numpy()
    np.testing.assert_allclose(encoder.encode([image])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_timm_brings_its_own_preprocessing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Tiny(nn.Module):
        """Stands in for a network of timm, which is not installed here."""

        pretrained_cfg = {  # noqa: RUF012
            "input_size": (3, 16, 24),
            "crop_pct": 0.8,
            "interpolation": "bicubic",
            "mean": (0.1, 0.2, 0.3),
            "std": (1.0, 1.0, 1.0),
        }

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3))

    timm = ModuleType("timm")
    timm.create_model = lambda name, **settings: Tiny()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = stage_encoder(EncoderConfig(path="timm:tiny"), tmp_path).encoder
    rule = encoder.preprocessing.rule
    assert isinstance(rule, ImageInput)
    assert (rule.height, rule.width, rule.short_side, rule.resize) == (16, 24, 30, "crop")
    assert encoder.encode([Image.new("RGB", (50, 40), (255, 0, 0))]).shape == (1, 3)
