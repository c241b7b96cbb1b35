"""Backbone, pooling, linear head, unit length: the network that is trained, exported and served."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.config import ModelConfig
from common.errors import ConfigError
from encoder.preprocessing import Preprocessing
from training.models.backbones import HUBS, Backbone, backbone_named
from training.models.backbones.mlp import Identity
from training.models.backbones.types import flat_size
from training.models.test_time_views import joined_views, views_of
from training.registry import built
from training.runtime.precision import at_least_float32


class Network(nn.Module):
    """Prepared input to unit vector.

    Args:
        dimension: length of an embedding.
        unit_input: scale input rows to unit length first, so that precomputed vectors of any length
            give the same embedding.
        views: of an image, whose embeddings are joined in evaluation mode (``training.views``); in training
            mode each image is one view and the embedding is ``dimension / views`` long.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: nn.Module,
        head: nn.Module,
        dimension: int,
        unit_input: bool,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.head = head
        self.unit_input = unit_input
        self.dimension = dimension
        self.views = views

    def forward(self, inputs: Tensor) -> Tensor:
        """Float [n, *input shape] to float32 [n, embedding_dim], unit rows."""
        if self.training or self.views == 1:
            return self.project(self.features(inputs))
        return joined_views(self.project(self.features(views_of(inputs, self.views))), self.views)

    def features(self, inputs: Tensor) -> Tensor:
        """Float [n, *input shape] to what the backbone makes of it, before pooling: [n, *features]."""
        if self.unit_input:
            inputs = F.normalize(inputs, dim=1)
        features: Tensor = self.backbone(inputs)
        return features

    def project(self, features: Tensor) -> Tensor:
        """The backbone's [n, *features] to float32 [n, embedding_dim / views], unit rows."""
        features = at_least_float32(self.pooling(features))
        with torch.autocast(features.device.type, enabled=False):  # three digits: too few to compare by
            return F.normalize(self.head(features), dim=1)


class GeM(nn.Module):
    """Generalised mean over positions with a learned exponent (Radenović et al. 2018, arXiv 1711.02512)."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(3.0))

    def forward(self, features: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c]."""
        return features.float().clamp(min=1e-6).pow(self.exponent).mean((2, 3)).pow(1 / self.exponent)


POOLINGS = {
    "average": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "max": lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "gem": GeM,
    "flat": nn.Flatten,
}


def refuse_other_inputs(backbone: str, kind: str) -> None:
    """Raises ConfigError when a backbone does not take inputs of a kind, e.g. ``image``, ``tokens``."""
    hub = backbone.startswith(HUBS)
    fits = kind in ("tokens", "image") if hub else kind != "tokens"
    if not fits or (kind == "text") != (backbone == "ngram"):
        raise ConfigError(f"model.backbone: '{backbone}' does not take {kind} inputs.")


def build_network(model: ModelConfig, preprocessing: Preprocessing) -> Network:
    """A freshly initialised network for inputs of that kind and shape.

    Raises:
        ConfigError: an unknown backbone or parameter, or a backbone that cannot take these inputs.
    """
    rule = preprocessing.input
    make = backbone_named(model.backbone, rule.kind)
    refuse_other_inputs(model.backbone, rule.kind)
    given: dict[str, Any] = {"input_shape": preprocessing.shape}
    if rule.kind == "text":
        given["buckets"] = rule.buckets
    backbone = built(make, model.parameters, f"model ({model.backbone})", **given)
    spatial = len(backbone.features) == 3
    chosen_pooling = model.pooling or ("average" if model.backbone.startswith(HUBS) else "flat")
    pooling = POOLINGS[chosen_pooling]() if spatial else nn.Flatten()
    size = backbone.features[0] if spatial and chosen_pooling != "flat" else flat_size(backbone.features)
    if model.views > 1 and (rule.kind != "image" or isinstance(backbone, Identity)):
        raise ConfigError(
            f"model.views: is for networks that look at images, found {model.backbone} on {rule.kind} "
            "inputs: leave it out."
        )
    if isinstance(backbone, Identity):
        if size != model.embedding_dim:
            raise ConfigError(
                f"model.embedding_dim: the identity backbone keeps the input's {size} numbers, found "
                f"{model.embedding_dim}."
            )
        return Network(backbone, pooling, nn.Identity(), size, rule.kind == "vector")
    head = nn.Linear(size, model.view_dim)
    return Network(backbone, pooling, head, model.embedding_dim, rule.kind == "vector", model.views)
