"""A network of somebody's own code as a backbone: ``torch:PACKAGE.MODULE:FUNCTION``."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

from torch import Tensor, nn

from common.atomic_files import hash_file
from common.errors import ConfigError
from training.models.backbones.backbone import Backbone, Shape, list_blocks
from training.models.backbones.hub import measure_features

TORCH = "torch:"


class TorchModule(Backbone):
    """What a class or function without arguments builds: a ``torch.nn.Module`` from a batch of inputs to
    features [n, d] or [n, channels, height, width].

    The module must be importable where the run is trained, and where its encoder is exported.
    """

    layouts = frozenset(("map", "row", "tokens", "ngrams"))
    usual_pooling = "average"

    def __init__(self, input_shape: Shape, source: str) -> None:
        super().__init__()
        self.network = _build(source)
        self.feature_shape = measure_features(self, input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.network(inputs)
        return features

    def describe(self) -> str:
        """Its layers, and the hash of the file of its code."""
        return f"{self.network} {hash_file(Path(inspect.getfile(type(self.network))))}"

    @property
    def blocks(self) -> list[nn.Module]:
        return list_blocks(self.network)


def _build(source: str) -> nn.Module:
    module, _, name = source.partition(":")
    where = f"model.backbone: {TORCH}{source}"
    try:
        build = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where} cannot be imported: {error}; write {TORCH}PACKAGE.MODULE:FUNCTION, of a module that "
            "Python finds (PYTHONPATH)."
        ) from None
    network = build()
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{where} gave {type(network).__name__}, expected a torch.nn.Module.")
    return network
