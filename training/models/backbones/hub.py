"""Networks of timm and transformers, by hub name or from a local folder, where those are installed."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.config import ModelConfig
from common.atomic_files import write_atomically
from common.errors import ConfigError, InputError
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from training.models.backbones.types import Backbone

HUBS = ("timm:", "hf:")  # what the names of these networks begin with
SHAPE = "config.json"  # what transformers calls it


class HubBackbone(Backbone):
    """A network that was trained elsewhere.

    Args:
        source: a hub name (downloaded once by that package), or a local folder.
        trained: share of its weight tensors, counted from the output, that training changes: 0 keeps it
            frozen, 1 trains it wholly. Normalisations in the frozen part keep their statistics.
        pretrained: start from its weights; random ones otherwise.
    """

    network: Any  # its package's own class

    def __init__(self, network: nn.Module, trained: float) -> None:
        super().__init__()
        if not 0 <= trained <= 1:
            raise ValueError(f"trained must be between 0 and 1, found {trained:g}")
        self.network = network
        weights = list(network.parameters())
        for weight in weights[: round((1 - trained) * len(weights))]:
            weight.requires_grad_(False)

    def train(self, mode: bool = True) -> HubBackbone:
        """As every module, but what is frozen stays as in evaluation."""
        super().train(mode)
        for module in self.network.modules():
            own = list(module.parameters())
            if own and not any(weight.requires_grad for weight in own):
                module.eval()
        return self


class Timm(HubBackbone):
    """An image network of timm: ``timm:resnet18``, ``timm:local-dir:FOLDER``."""

    def __init__(
        self, input_shape: tuple[int, ...], source: str, trained: float = 1.0, pretrained: bool = True
    ) -> None:
        channels = _image_channels(input_shape, f"timm:{source}")
        timm = package_of(f"timm:{source}")
        made = {"num_classes": 0, "global_pool": "", "in_chans": channels, "pretrained": pretrained}
        super().__init__(_loaded(timm.create_model, source, f"timm:{source}", **made), trained)
        self.features = _shape(self, input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, c, h, w] to [n, *features]."""
        return _as_map(self.network(inputs))


class HfImage(HubBackbone):
    """An image network of transformers: ``hf:NAME``; grey images are shown to it in three channels."""

    def __init__(
        self, input_shape: tuple[int, ...], source: str, trained: float = 1.0, pretrained: bool = True
    ) -> None:
        _image_channels(input_shape, f"hf:{source}")
        super().__init__(_transformer(source, pretrained), trained)
        self.channels = int(getattr(self.network.config, "num_channels", 3))
        self.features = _shape(self, input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, c, h, w] to [n, *features]."""
        if inputs.shape[1] != self.channels:
            inputs = inputs.expand(-1, self.channels, -1, -1)
        return _as_map(self.network(pixel_values=inputs).last_hidden_state)


class HfText(HubBackbone):
    """A text encoder of transformers: ``hf:NAME``; the mean over a text's tokens, or the first of them.

    Args:
        pool: ``mean`` or ``first``.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        source: str,
        trained: float = 1.0,
        pretrained: bool = True,
        pool: str = "mean",
    ) -> None:
        if pool not in ("mean", "first"):
            raise ValueError(f"pool must be mean or first, found {pool!r}")
        super().__init__(_transformer(source, pretrained), trained)
        longest = getattr(self.network.config, "max_position_embeddings", None)
        if longest is not None and input_shape[0] > longest:
            raise ConfigError(
                f"data.text.length: hf:{source} takes at most {longest} tokens, found {input_shape[0]}."
            )
        self.pool = pool
        self.features = (int(self.network.config.hidden_size),)

    def forward(self, inputs: Tensor) -> Tensor:
        """Token numbers plus 1 [n, length], 0 where there is none, to [n, d]."""
        present = inputs > 0
        numbers = (inputs.long() - 1).clamp(min=0)
        found: Tensor = self.network(input_ids=numbers, attention_mask=present.long()).last_hidden_state
        if self.pool == "first":
            return found[:, 0]
        weights = present.to(found.dtype).unsqueeze(2)
        return (found * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def tokenizer_of(source: str) -> Tokenizer:
    """The tokenizer of a local folder or a hub name; raises InputError when there is none."""
    if Path(source).is_dir():
        return Tokenizer.open(Path(source) / TOKENIZER_FILE)
    tokenizers = _package("tokenizers", f"data.text.tokenizer '{source}'")
    return Tokenizer(_loaded(tokenizers.Tokenizer.from_pretrained, source, source).to_str().encode())


def keep_shape(backbone: nn.Module, folder: Path) -> None:
    """Write what ``without_weights`` builds a network of transformers from; nothing for any other network."""
    if isinstance(backbone, HfImage | HfText):
        folder.mkdir(exist_ok=True)
        write_atomically(folder / SHAPE, backbone.network.config.to_json_string().encode())


def without_weights(model: ModelConfig, folder: Path) -> ModelConfig:
    """The same network for who loads its weights afterwards: none are fetched, nor is a kept shape."""
    if not model.backbone.startswith(HUBS):
        return model
    kept = model.backbone.startswith("hf:") and (folder / SHAPE).is_file()
    named = f"hf:{folder}" if kept else model.backbone
    return model.model_copy(update={"backbone": named, "pretrained": False})


def _transformer(source: str, pretrained: bool) -> Any:
    transformers = package_of(f"hf:{source}")
    # the exporter to ONNX follows plain attention, not the fused kernels
    if pretrained:
        load = transformers.AutoModel.from_pretrained
        return _loaded(load, source, f"hf:{source}", attn_implementation="eager")
    shape = _loaded(transformers.AutoConfig.from_pretrained, source, f"hf:{source}")
    return transformers.AutoModel.from_config(shape, attn_implementation="eager")


def package_of(backbone: str) -> Any:
    """The module that a ``timm:`` or ``hf:`` network comes from; raises ConfigError when it is missing."""
    return _package("timm" if backbone.startswith("timm:") else "transformers", backbone)


def _package(name: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{wanted_by} needs {error.name}, which is not installed: pip install {name}."
        ) from None


def _loaded(load: Any, source: str, named: str, **settings: Any) -> Any:
    try:
        return load(source, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{named} cannot be loaded: {first}") from None


def _image_channels(input_shape: tuple[int, ...], named: str) -> int:
    if len(input_shape) != 3:
        raise ConfigError(f"model.backbone: '{named}' takes images.")
    return input_shape[0]


def _shape(backbone: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one item's features, seen on a blank image."""
    backbone.eval()
    try:
        with torch.inference_mode():
            found = backbone(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"model.backbone: images of {input_shape} do not fit it: {reason}") from None
    return tuple(found.shape[1:])


def _as_map(features: Tensor) -> Tensor:
    """Token features [n, tokens, d] as a map [n, d, side, side], without class tokens; maps as they are."""
    if features.ndim != 3:
        return features
    side = math.isqrt(features.shape[1])
    patches = features[:, features.shape[1] - side * side :]
    found: Tensor = patches.transpose(1, 2).unflatten(2, (side, side))  # type: ignore[no-untyped-call]
    return found
