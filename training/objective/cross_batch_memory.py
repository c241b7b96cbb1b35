"""Cross-batch memory: embeddings of earlier batches as further references, for any loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.yaml_config import NamedPart
from training.losses import Loss
from training.losses.parts.loss_batch import Indices
from training.objective.miners import Miner
from training.registry import build_from_spec


class CrossBatchMemory(nn.Module):
    """``loss(batch) + weight * loss(batch against the memory)``.

    Embeddings of earlier batches drift slowly, so they can serve as more negatives (Wang et al., Cross-Batch
    Memory, CVPR 2020, arXiv 1912.06798). The memory holds earlier batches only: no item meets itself. It is
    state that a checkpoint keeps, with its position and fill; the library's is empty after resuming.

    A loss over class vectors has no references: there the memory's items join the batch, and train the class
    vectors (Kim et al., BroadFace, ECCV 2020, arXiv 2008.06674).

    Args:
        loss: called with ``ref_emb`` and ``ref_labels``; of one that a mixup wraps, the clean loss is.
        size: embeddings kept. weight: of the memory's term. warmup: steps before the memory is used.
        miner: selects pairs of batch and memory, as it does within the batch.
    """

    vectors: Tensor
    labels: Tensor
    count: Tensor
    steps: Tensor

    def __init__(
        self,
        loss: nn.Module,
        embedding_dim: int,
        size: int = 4096,
        weight: float = 1.0,
        warmup: int = 0,
        miner: Miner | None = None,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1, found {size}")
        if weight <= 0 or warmup < 0:
            raise ValueError(f"weight must be above 0, warmup 0 or more, found {weight:g} and {warmup}")
        self.loss, self.miner = loss, miner
        self.weight, self.warmup = weight, warmup
        self.mixes = bool(getattr(loss, "mixes", False))
        self.joins = isinstance(self.clean, Loss) and not self.clean.takes_references
        self.register_buffer("vectors", torch.zeros(size, embedding_dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def clean(self) -> nn.Module:
        """The loss without the mixup that wraps it."""
        clean: nn.Module = getattr(self.loss, "loss", self.loss)
        return clean

    def forward(
        self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None, **mixing: Any
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar; the batch is remembered when gradients are on."""
        total: Tensor = self.loss(embeddings, labels, indices, **mixing)
        kept = min(int(self.count), len(self.vectors))
        if kept and int(self.steps) >= self.warmup:
            total = total + self.weight * self._compare_with_memory(embeddings, labels, kept)
        if torch.is_grad_enabled():
            self._remember(embeddings.detach(), labels)
        return total

    def _compare_with_memory(self, embeddings: Tensor, labels: Tensor, kept: int) -> Tensor:
        vectors = self.vectors[:kept].to(embeddings.dtype).clone()
        old_labels = self.labels[:kept].clone()
        if self.joins:
            joined: Tensor = self.clean(torch.cat([embeddings, vectors]), torch.cat([labels, old_labels]))
            return joined
        indices = self.miner(embeddings.detach(), labels, vectors, old_labels) if self.miner else None
        value: Tensor = self.clean(embeddings, labels, indices, vectors, old_labels)
        return value

    @torch.no_grad()
    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        size = len(self.vectors)
        newest = slice(max(0, len(labels) - size), None)
        positions = (int(self.count) + torch.arange(len(labels), device=labels.device))[newest] % size
        self.vectors[positions] = embeddings[newest].to(self.vectors)
        self.labels[positions] = labels[newest].to(self.labels)
        self.count += len(labels)
        self.steps += 1


MEMORIES = {"cross_batch": CrossBatchMemory}
"""Name in the configuration to class."""


def build_memory(
    spec: NamedPart, loss: nn.Module, *, embedding_dim: int, miner: Miner | None = None
) -> nn.Module:
    """The loss with that memory; raises ConfigError naming the nearest valid name or parameter."""
    return build_from_spec(MEMORIES, spec, "memory", loss=loss, embedding_dim=embedding_dim, miner=miner)
