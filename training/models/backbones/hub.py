"""Pretrained networks of timm and transformers, by hub name or from a local folder."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.manifest import TOKENIZER_FILE
from common.atomic_files import write_atomically
from common.errors import ConfigError, InputError
from encoder.inputs.text_input import Tokenizer
from training.models.backbones.backbone import Backbone, Shape, list_blocks

TIMM, HF = "timm:", "hf:"  # what the names of these networks begin with
ARCHITECTURE_FILE = "config.json"  # what transformers calls it


class HubBackbone(Backbone):
    """A network that was trained elsewhere.

    Args:
        source: a hub name (downloaded once by that package), or a local folder.
        pretrained: start from its weights; random ones otherwise.
    """

    usual_pooling = "average"
    network: Any  # its package's own class

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def blocks(self) -> list[nn.Module]:
        return list_blocks(self.network)


class Timm(HubBackbone):
    """An image network of timm: ``timm:resnet18``, ``timm:local-dir:FOLDER``."""

    layouts = frozenset(("map",))

    def __init__(self, input_shape: Shape, source: str, pretrained: bool = True) -> None:
        name = f"{TIMM}{source}"
        settings = {"num_classes": 0, "global_pool": "", "in_chans": input_shape[0], "pretrained": pretrained}
        super().__init__(load_from_package(import_hub(name).create_model, source, name, **settings))
        self.name = name
        self.feature_shape = measure_features(self, input_shape)

    def describe(self) -> str:
        """Its name."""
        return self.name

    def forward(self, inputs: Tensor) -> Tensor:
        return _reshape_to_map(self.network(inputs))


class Transformer(HubBackbone):
    """A network of transformers."""

    def describe(self) -> str:
        """Its architecture."""
        architecture: str = self.network.config.to_json_string()
        return architecture

    def save_shape(self, folder: Path) -> None:
        """Its architecture, in that package's own file."""
        folder.mkdir(exist_ok=True)
        write_atomically(folder / ARCHITECTURE_FILE, self.describe().encode())


class HfImage(Transformer):
    """An image network of transformers: ``hf:NAME``; grey images are shown to it in three channels."""

    layouts = frozenset(("map",))

    def __init__(self, input_shape: Shape, source: str, pretrained: bool = True) -> None:
        super().__init__(load_transformer(source, pretrained))
        self.channels = int(getattr(self.network.config, "num_channels", 3))
        self.feature_shape = measure_features(self, input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape[1] != self.channels:
            inputs = inputs.expand(-1, self.channels, -1, -1)
        return _reshape_to_map(self.network(pixel_values=inputs).last_hidden_state)


class HfText(Transformer):
    """A text encoder of transformers: ``hf:NAME``; the mean over a text's tokens, or the first of them.

    Args:
        pool: ``mean`` or ``first``.
    """

    layouts = frozenset(("tokens",))

    def __init__(
        self,
        input_shape: Shape,
        source: str,
        pretrained: bool = True,
        pool: str = "mean",
    ) -> None:
        if pool not in ("mean", "first"):
            raise ValueError(f"pool must be mean or first, found {pool!r}")
        super().__init__(load_transformer(source, pretrained))
        longest = getattr(self.network.config, "max_position_embeddings", None)
        if longest is not None and input_shape[0] > longest:
            raise ConfigError(
                f"data.text.length: hf:{source} takes at most {longest} tokens, found {input_shape[0]}."
            )
        self.pool = pool
        self.feature_shape = (int(self.network.config.hidden_size),)

    def forward(self, inputs: Tensor) -> Tensor:
        """Token ids plus 1 [n, length], 0 where there is none, to [n, d]."""
        present = inputs > 0
        ids = (inputs.long() - 1).clamp(min=0)
        states: Tensor = self.network(input_ids=ids, attention_mask=present.long()).last_hidden_state
        if self.pool == "first":
            return states[:, 0]
        weights = present.to(states.dtype).unsqueeze(2)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def is_hub(backbone: str) -> bool:
    """Whether a backbone's name is that of a network of timm or transformers."""
    return backbone.startswith((TIMM, HF))


def load_tokenizer(source: str, special_tokens: bool = True) -> Tokenizer:
    """The tokenizer of a file, a local folder or a hub name; raises InputError when there is none."""
    path = Path(source)
    if path.is_dir() or path.suffix == ".json":
        own = path / TOKENIZER_FILE if path.is_dir() else path
        return Tokenizer.open(own, special_tokens=special_tokens)
    tokenizers = _import_package("tokenizers", f"data.text.tokenizer '{source}'")
    return Tokenizer(
        load_from_package(tokenizers.Tokenizer.from_pretrained, source, source).to_str().encode(),
        special_tokens,
    )


def load_transformer(source: str, pretrained: bool) -> Any:
    """A network of transformers; raises InputError when it cannot be loaded."""
    name = f"{HF}{source}"
    transformers = import_hub(name)
    # the exporter to ONNX follows plain attention, not the fused kernels
    if pretrained:
        load = transformers.AutoModel.from_pretrained
        return load_from_package(load, source, name, attn_implementation="eager")
    architecture = load_from_package(transformers.AutoConfig.from_pretrained, source, name)
    return transformers.AutoModel.from_config(architecture, attn_implementation="eager")


def import_hub(backbone: str) -> Any:
    """The module that a ``timm:`` or ``hf:`` network comes from; raises ConfigError when it is missing."""
    return _import_package("timm" if backbone.startswith(TIMM) else "transformers", backbone)


def _import_package(name: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{wanted_by} needs {error.name}, which is not installed: pip install {name}."
        ) from None


def load_from_package(load: Any, source: str, name: str, **settings: Any) -> Any:
    """What a package's own loader makes of a name; raises InputError when it cannot."""
    try:
        return load(source, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name} cannot be loaded: {first}") from None


def measure_features(backbone: nn.Module, input_shape: Shape) -> Shape:
    """Shape of one item's features, seen on a blank image."""
    backbone.eval()
    try:
        with torch.inference_mode():
            features = backbone(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"model.backbone: images of {input_shape} do not fit it: {reason}") from None
    return tuple(features.shape[1:])


def _reshape_to_map(features: Tensor) -> Tensor:
    """Token features [n, tokens, d] as a feature map [n, d, side, side] without class tokens; maps stay."""
    if features.ndim != 3:
        return features
    side = math.isqrt(features.shape[1])
    patches = features[:, features.shape[1] - side * side :]
    grid: Tensor = patches.transpose(1, 2).unflatten(2, (side, side))  # type: ignore[no-untyped-call]
    return grid
