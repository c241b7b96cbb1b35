"""Low-rank changes of a network's weights by peft: added to train, merged to evaluate and export."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from api_schemas.config import LoraConfig
from common.errors import ConfigError

CHANGED = (nn.Linear, nn.Conv2d)


def add_lora(network: nn.Module, settings: LoraConfig) -> None:
    """Freeze a network and put a trained low-rank change beside each of its linear layers and convolutions.

    Raises:
        ConfigError: peft is not installed, or no layer is called so.
    """
    peft = _import_peft()
    names = [name for name, part in network.named_modules() if _can_change(part)]
    asked = settings.layers
    chosen = names if asked is None else [name for name in names if name.endswith(tuple(asked))]
    if not chosen:
        raise ConfigError(
            f"model.lora.layers: no linear layer or convolution is called {' or '.join(asked or [])}; there "
            f"are {', '.join(names[:5])}{', ...' if names[5:] else ''}."
        )
    lora = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=chosen
    )
    network.requires_grad_(False)
    peft.inject_adapter_in_model(lora, network)


def merge_lora(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of the network as it was before ``add_lora``, its changes added to them.

    Args:
        network: of which these are the tensors; it stays as it is.
    """
    if not any("lora_" in name for name in weights):
        return weights
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = deepcopy(network)
    merged.load_state_dict(weights)
    for name, layer in list(merged.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(merged.get_submodule(parent), own, layer.get_base_layer())
    return merged.state_dict()


def _can_change(layer: nn.Module) -> bool:
    """Grouped convolutions have few weights, and peft takes no rank that the groups do not divide."""
    return isinstance(layer, CHANGED) and getattr(layer, "groups", 1) == 1


def _import_peft() -> Any:
    try:
        return import_module("peft")
    except ModuleNotFoundError:
        raise ConfigError(
            "model.train: lora needs peft, which is not installed: pip install 'limen[hub]'."
        ) from None
