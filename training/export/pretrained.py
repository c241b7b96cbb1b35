"""Networks of timm and transformers as ONNX files with free batch and length, as they are, untrained here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.manifest import TOKENIZER_FILE
from common.atomic_files import write_atomically
from common.errors import InputError
from training.export.onnx_export import OPSET
from training.models.backbones.hub import (
    HF,
    TIMM,
    import_hub,
    load_from_package,
    load_tokenizer,
    load_transformer,
)

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class _States(nn.Module):
    """The last hidden states of a network of transformers, by positional arguments."""

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        states: Tensor = self.network(**dict(zip(self.names, inputs, strict=True))).last_hidden_state
        return states


def export_pretrained(source: str, target: Path) -> dict[str, Any]:
    """Write the network ``timm:NAME`` or ``hf:NAME`` to an ONNX file.

    A tokenizer is written beside it.

    Returns:
        What ``preprocessing.yaml`` would say of it.

    Raises:
        ConfigError: the package is not installed. InputError: there is no such network, or none of images
            or texts.
    """
    if source.startswith(TIMM):
        return _export_timm(source.removeprefix(TIMM), target)
    name = source.removeprefix(HF)
    network = load_transformer(name, pretrained=True).eval()
    if hasattr(network.config, "num_channels"):
        return _export_image_transformer(name, network, target)
    if hasattr(network.config, "vocab_size"):
        return _export_text_transformer(name, network, target)
    raise InputError(f"{source} takes neither images nor texts.")


def _export_timm(name: str, target: Path) -> dict[str, Any]:
    timm = import_hub(f"{TIMM}{name}")
    network = load_from_package(timm.create_model, name, f"{TIMM}{name}", num_classes=0, pretrained=True)
    known = network.pretrained_cfg
    channels, height, width = known["input_size"]
    _export(network, [torch.zeros(2, channels, height, width)], ["images"], {0: "batch"}, target)
    return {
        "kind": "image",
        "size": [height, width],
        "resize": "crop",
        "crop_fraction": float(known.get("crop_pct") or 1.0),
        "interpolation": known.get("interpolation", "bilinear"),
        "mean": [float(value) for value in known["mean"]],
        "std": [float(value) for value in known["std"]],
    }


def _export_image_transformer(name: str, network: Any, target: Path) -> dict[str, Any]:
    hub = import_hub(f"{HF}{name}").utils
    path = load_from_package(hub.cached_file, name, f"{HF}{name}", filename=hub.IMAGE_PROCESSOR_NAME)
    known: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    shape = _read_size(known.get("crop_size") or known.get("size") or {}) or [224, 224]
    images = torch.zeros(2, network.config.num_channels, *shape)
    states = _States(network, ["pixel_values"])
    _export(states, [images], ["pixel_values"], {0: "batch"}, target)
    keys: dict[str, Any] = {
        "kind": "image",
        "size": shape,
        "interpolation": INTERPOLATIONS.get(int(known.get("resample", 2)), "bilinear"),
        "mean": known.get("image_mean", [0.0] * 3) if known.get("do_normalize", True) else 0.0,
        "std": known.get("image_std", [1.0] * 3) if known.get("do_normalize", True) else 1.0,
        "network": {"pooling": "cls" if states(images).ndim == 3 else "mean"},
    }
    if known.get("do_center_crop"):
        short = (known.get("size") or {}).get("shortest_edge", max(shape))
        keys |= {"resize": "crop", "short_side": max(int(short), *shape)}
    return keys


def _export_text_transformer(name: str, network: Any, target: Path) -> dict[str, Any]:
    tokenizer = target.with_name(TOKENIZER_FILE)
    write_atomically(tokenizer, load_tokenizer(name).content)
    names = ["input_ids", "attention_mask"]
    texts = torch.ones(2, 8, dtype=torch.long)
    _export(_States(network, names), [texts, texts], names, {0: "batch", 1: "length"}, target)
    longest = int(getattr(network.config, "max_position_embeddings", 512))
    return {
        "preset": "sentence",
        "tokenizer": str(tokenizer),
        "length": min(256, longest),
        "network": {"pooling": "mean"},
    }


def _read_size(size: Mapping[str, int]) -> list[int] | None:
    if "height" in size:
        return [int(size["height"]), int(size["width"])]
    return [int(size["shortest_edge"])] * 2 if "shortest_edge" in size else None


def _export(
    network: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], free: dict[int, str], target: Path
) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            network.eval(),
            tuple(inputs),
            target,
            input_names=list(names),
            output_names=["features"],
            dynamic_axes={**dict.fromkeys(names, free), "features": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
