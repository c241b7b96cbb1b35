"""MobileNetV2 is the network of its published weights, under either of the two names they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from common.errors import ConfigError, InputError
from training.models.backbones.mobilenet_v2 import MobileNetV2
from training.models.pretrained_weights import load_backbone_weights


def test_it_answers_as_the_onnx_file_of_the_same_weights(datasets: Path) -> None:
    folder = datasets / "encoders"
    network = MobileNetV2((3, 64, 64))
    load_backbone_weights(network, str(folder / "mobilenet_v2_imagenet.safetensors"))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        pooled = network.eval()(torch.from_numpy(images)).mean((2, 3)).numpy()
    session = onnxruntime.InferenceSession(
        str(folder / "mobilenet_v2_imagenet.onnx"), providers=["CPUExecutionProvider"]
    )
    answered = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(pooled, answered, atol=1e-4)
    assert np.abs(answered).max() > 0.5, "what is compared is not all zero"


def nest_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that torchvision gives the layers of an inverted residual."""
    nested = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[2] == "conv":
            last = max(
                int(other.split(".")[3]) for other in weights if other.startswith(f"features.{parts[1]}.")
            )
            position = int(parts[3])
            plain = position >= last - 1
            parts[3] = (
                str((last - 1) // 3 + position - last + 1) if plain else f"{position // 3}.{position % 3}"
            )
        nested[".".join(parts)] = value
    return nested


def test_names_of_torchvision_are_taken_and_a_classifier_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = MobileNetV2((3, 32, 32)), MobileNetV2((3, 32, 32))
    nested = nest_names(network.state_dict())
    assert "features.1.conv.1.weight" in nested
    assert "features.2.conv.2.weight" in nested
    assert "features.2.conv.1.1.running_mean" in nested
    nested["classifier.1.weight"] = torch.zeros(10, 1280)
    safetensors.torch.save_file(nested, tmp_path / "nested.safetensors")
    load_backbone_weights(other, str(tmp_path / "nested.safetensors"))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=0, rtol=0)


def test_weights_of_another_network_are_one_sentence(tmp_path: Path) -> None:
    network = MobileNetV2((3, 32, 32))
    weights = network.state_dict()
    weights["features.0.0.weight"] = torch.zeros(32, 1, 3, 3)
    safetensors.torch.save_file(weights, tmp_path / "grey.safetensors")
    with pytest.raises(ConfigError, match=r"does not hold 1 of the backbone's .* \(features\.0\.0\.weight\)"):
        load_backbone_weights(network, str(tmp_path / "grey.safetensors"))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name in ("torn.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=rf"model\.weights: .*{name} cannot be read as safetensors"):
            load_backbone_weights(network, str(tmp_path / name))


def test_grey_images_are_shown_in_three_channels() -> None:
    network = MobileNetV2((1, 32, 32)).eval()
    grey = torch.rand(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))
        half = network.run_from(network.run_until(grey, 9), 9)
        torch.testing.assert_close(half, network(grey))
    assert len(network.blocks) == 19
