"""The embedding network: backbone, pooling, linear head, unit length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.config import ModelConfig
from common.errors import ConfigError
from encoder.inputs.preprocessing import Preprocessing
from encoder.network import PIECES_AT_ONCE
from training.models.backbones import select_backbone
from training.models.backbones.backbone import Backbone
from training.models.backbones.mlp import Identity
from training.models.pretrained_weights import load_backbone_weights
from training.models.test_time_views import join_views, make_views
from training.registry import build_entry
from training.runtime.device import widen_half_precision

LEAST_CHANNELS = 8  # with fewer, oneDNN's AVX2 kernels write beyond the memory of channels-last gradients


class Network(nn.Module):
    """Prepared input to unit vector.

    Args:
        dimension: length of an embedding.
        is_unit_scaled: scale input rows to unit length first, so that precomputed vectors of any length
            give the same embedding.
        views: of an image, whose embeddings are joined in evaluation mode
            (``training.models.test_time_views``); in training mode each image is one view and the embedding
            is ``dimension / views`` long.
        exits: by a block of the backbone's chain, from 1, a head on what comes out of it.

    Attributes:
        takes_features: its inputs are features that were computed and pooled before.
        query_tower: a network of the same shape that embeds queries, where this one embeds items alone.
    """

    takes_features = False

    def __init__(
        self,
        backbone: Backbone,
        pooling: nn.Module,
        head: nn.Module,
        dimension: int,
        is_unit_scaled: bool,
        views: int = 1,
        exits: Mapping[int, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.head = head
        self.exits = nn.ModuleDict({str(block): head for block, head in (exits or {}).items()})
        self.layout = choose_layout(backbone)
        self.is_unit_scaled = is_unit_scaled
        self.dimension = dimension
        self.views = views
        self.query_tower: Network | None = None

    @property
    def towers(self) -> list[Network]:
        """The network itself, and that of the queries where it is another."""
        return [self] if self.query_tower is None else [self, self.query_tower]

    def compute_outputs_by_role(self, inputs: Tensor, is_query: Tensor) -> Tensor:
        """Float [n, *input shape] to float32 [n, embedding_dim], rows of any length, each by its tower.

        Args:
            is_query: bool [n].
        """
        if self.query_tower is None:
            return self.compute_outputs(self.extract_features(inputs))
        order = torch.cat([is_query.nonzero()[:, 0], (~is_query).nonzero()[:, 0]])
        parts = [
            tower.compute_outputs(tower.extract_features(inputs[part]))
            for tower, part in ((self.query_tower, is_query), (self, ~is_query))
            if part.any()
        ]
        return torch.cat(parts)[order.argsort()]

    def forward(self, inputs: Tensor) -> Tensor:
        """Float [n, *input shape], or in pieces [n, pieces, *input shape], to float32 [n, embedding_dim].

        Rows have length one; that of an input in pieces is the direction of the mean of its pieces' rows.
        """
        if inputs.ndim == 5:
            return self._embed_pieces(inputs)
        if self.training or self.views == 1:
            return self.project(self.extract_features(inputs))
        return join_views(self.project(self.extract_features(make_views(inputs, self.views))), self.views)

    def _embed_pieces(self, inputs: Tensor) -> Tensor:
        """As ``encoder.network.Network`` does it; pieces that an input lacks are NaN."""
        rows, positions = (~inputs[:, :, 0, 0, 0].isnan()).nonzero(as_tuple=True)
        starts = range(0, len(rows), PIECES_AT_ONCE)
        parts = [slice(start, start + PIECES_AT_ONCE) for start in starts]
        pieces = torch.cat([self(inputs[rows[part], positions[part]]) for part in parts])
        return F.normalize(pieces.new_zeros(len(inputs), pieces.shape[1]).index_add(0, rows, pieces), dim=1)

    def extract_features(self, inputs: Tensor, block: int | None = None) -> Tensor:
        """Float [n, *input shape] to what the backbone makes of it, before pooling: [n, *features].

        Args:
            block: of the backbone's chain, from 1, to stop after.
        """
        if self.takes_features:
            return inputs
        if self.is_unit_scaled:
            inputs = F.normalize(inputs, dim=1)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.layout)
        features: Tensor = self.backbone(inputs) if block is None else self.backbone.run_until(inputs, block)
        return features

    def finish_features(self, values: Tensor, block: int | None = None) -> Tensor:
        """What came out of a block of the backbone to [n, *features]; features themselves without one."""
        return values if block is None else self.backbone.run_from(values, block)

    def run_exits(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the exits make of [n, *input shape], float32 [n, embedding_dim] each with rows of any length,
        and the backbone's [n, *features]."""
        outputs: list[Tensor] = []
        if not len(self.exits):
            return outputs, self.extract_features(inputs)
        values, done = inputs, 0
        for key, head in self.exits.items():
            block = int(key)
            if done:
                values = self.backbone.run_between(values, done, block)
            else:
                values = self.extract_features(inputs, block)
            outputs.append(head(values))
            done = block
        return outputs, self.finish_features(values, done)

    def cut_at(self, block: int) -> Network:
        """The network that ends at one of its exits; it shares its weights."""
        head = self.exits[str(block)]
        assert isinstance(head, ExitHead)
        first = FirstBlocks(self.backbone, block, head.channels)
        return Network(first, head.pooling, head.head, self.dimension, self.is_unit_scaled)

    def pool(self, features: Tensor) -> Tensor:
        """The backbone's [n, *features] to float32 [n, size], one vector an item."""
        return features if self.takes_features else widen_half_precision(self.pooling(features))

    def project(self, features: Tensor) -> Tensor:
        """The backbone's [n, *features] to float32 [n, embedding_dim / views], unit rows."""
        return F.normalize(self.compute_outputs(features), dim=1)

    def compute_outputs(self, features: Tensor) -> Tensor:
        """The backbone's [n, *features] to float32 [n, embedding_dim / views], rows of any length."""
        features = self.pool(features)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has too few digits to compare by
            outputs: Tensor = self.head(features)
            return outputs


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


class ExitHead(nn.Module):
    """An average over positions and a linear head on what comes out of a block, [n, channels, h, w]."""

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        self.channels = channels
        self.pooling = POOLINGS["average"]()
        self.head = nn.Linear(channels, dimension)

    def forward(self, values: Tensor) -> Tensor:
        """To float32 [n, dimension], rows of any length."""
        pooled = widen_half_precision(self.pooling(values))
        with torch.autocast(pooled.device.type, enabled=False):
            outputs: Tensor = self.head(pooled)
            return outputs


class FirstBlocks(Backbone):
    """A backbone that ends after a block of its chain."""

    def __init__(self, backbone: Backbone, block: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*backbone.chain[:block])
        self.feature_shape = (channels, 1, 1)


def build_network(model: ModelConfig, preprocessing: Preprocessing) -> Network:
    """A freshly initialised network for prepared inputs, in the memory layout that convolutions are fast in.

    Raises:
        ConfigError: an unknown backbone or parameter, or a backbone that cannot take these inputs.
    """
    backbone = build_entry(
        select_backbone(model.backbone, preprocessing),
        model.parameters,
        f"model ({model.backbone})",
        input_shape=preprocessing.shape,
        **preprocessing.backbone_arguments,
    )
    if model.views > 1 and (not preprocessing.is_picture or isinstance(backbone, Identity)):
        raise ConfigError(
            f"model.views: is for networks that look at images, found {model.backbone} on "
            f"{preprocessing.rule.kind} inputs: leave it out."
        )
    is_map = len(backbone.feature_shape) == 3
    if model.weights is not None:
        load_backbone_weights(backbone, model.weights)
    pooling_name = model.pooling or backbone.usual_pooling
    pooling = POOLINGS[pooling_name]() if is_map else nn.Flatten()
    is_pooled = is_map and pooling_name != "flat"
    size = backbone.feature_shape[0] if is_pooled else math.prod(backbone.feature_shape)
    if model.head == "linear" and not isinstance(backbone, Identity):
        head: nn.Module = nn.Linear(size, model.view_dim)
    elif size == model.view_dim:
        head = nn.Identity()
    else:
        what = "the identity backbone" if isinstance(backbone, Identity) else "a network without a head"
        keeps = "the input's" if isinstance(backbone, Identity) else "the features'"
        raise ConfigError(
            f"model.embedding_dim: {what} keeps {keeps} {size} numbers, found {model.embedding_dim}: set it "
            f"to {size * model.views}."
        )
    exits = {block: _build_exit(backbone, block, model, preprocessing.shape) for block in model.exits}
    network = Network(
        backbone, pooling, head, model.embedding_dim, preprocessing.is_unit_scaled, model.views, exits
    )
    # torch's stubs do not know this argument
    network.to(memory_format=network.layout)  # type: ignore[call-overload]
    if model.towers == 2:
        network.query_tower = deepcopy(network)
    return network


def _build_exit(backbone: Backbone, block: int, model: ModelConfig, shape: tuple[int, ...]) -> ExitHead:
    """A head after a block; raises ConfigError where there is none, or no image comes out of it."""
    count = len(backbone.chain)
    if block >= count:
        found = f"has {count} blocks: exits come before the last one" if count else "is no chain of blocks"
        raise ConfigError(f"model.exits: backbone '{model.backbone}' {found}, found {block}.")
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        values = backbone.run_until(torch.zeros(1, *shape), block)
    backbone.train(was_training)
    if values.ndim != 4:
        raise ConfigError(
            f"model.exits: are for networks on images, found {model.backbone}: leave exits out."
        )
    return ExitHead(values.shape[1], model.embedding_dim)


def choose_layout(backbone: nn.Module) -> torch.memory_format:
    """Channels last, in which CPU convolutions are fast, unless one is too narrow for it."""
    convolutions = (part for part in backbone.modules() if isinstance(part, nn.Conv2d))
    is_narrow = any(part.out_channels < LEAST_CHANNELS for part in convolutions)
    return torch.contiguous_format if is_narrow else torch.channels_last
