"""Cross-batch memory: embeddings of earlier batches as further references, for any loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.losses.base import Indices, Loss
from training.objective.miners import Miner
from training.registry import built, chosen
from training.registry_listing import Spec


class CrossBatchMemory(nn.Module):
    """``loss(batch) + weight * loss(batch against the memory)``.

    What came in earlier batches drifts slowly, so it can stand for more negatives (Wang et al., Cross-Batch
    Memory, CVPR 2020, arXiv 1912.06798). The memory holds earlier batches only: no item meets itself. It is
    state that a checkpoint keeps, with its place and fill; the library's is empty after resuming.

    A loss over class vectors has no references: there the memory's items join the batch, and train the class
    vectors (Kim et al., BroadFace, ECCV 2020, arXiv 2008.06674).

    Args:
        loss: called with ``ref_emb`` and ``ref_labels``.
        size: embeddings kept. weight: of the memory's term. warmup: steps before the memory is used.
        miner: picks pairs of batch and memory, as it does within the batch.
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
        self.loss, self.miner = loss, miner
        self.weight, self.warmup = weight, warmup
        inner = getattr(loss, "loss", loss)  # a mixup wraps the loss
        self.mixes = bool(getattr(loss, "mixes", False))
        self.joins = isinstance(inner, Loss) and not inner.takes_references
        self.register_buffer("vectors", torch.zeros(size, embedding_dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        **mixing: Any,
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar; the batch is remembered when gradients are on."""
        total: Tensor = self.loss(embeddings, labels, indices_tuple, ref_emb, ref_labels, **mixing)
        kept = min(int(self.count), len(self.vectors))
        if kept and int(self.steps) >= self.warmup:
            total = total + self.weight * self._against(embeddings, labels, kept)
        if torch.is_grad_enabled():
            self._remember(embeddings.detach(), labels)
        return total

    def _against(self, embeddings: Tensor, labels: Tensor, kept: int) -> Tensor:
        vectors = self.vectors[:kept].to(embeddings.dtype).clone()
        old = self.labels[:kept].clone()
        inner = getattr(self.loss, "loss", self.loss)
        if self.joins:
            value: Tensor = inner(torch.cat([embeddings, vectors]), torch.cat([labels, old]))
            return value
        indices = self.miner(embeddings.detach(), labels, vectors, old) if self.miner else None
        against: Tensor = inner(embeddings, labels, indices, vectors, old)
        return against

    @torch.no_grad()
    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        size = len(self.vectors)
        newest = slice(max(0, len(labels) - size), None)
        places = (int(self.count) + torch.arange(len(labels), device=labels.device))[newest] % size
        self.vectors[places] = embeddings[newest].to(self.vectors)
        self.labels[places] = labels[newest].to(self.labels)
        self.count += len(labels)
        self.steps += 1


MEMORIES = {"cross_batch": CrossBatchMemory}
"""Name in the configuration to class."""


def build(spec: Spec, loss: nn.Module, *, embedding_dim: int, miner: Miner | None = None) -> nn.Module:
    """The loss with that memory; raises ConfigError naming the nearest valid name or parameter."""
    make = chosen(MEMORIES, spec.name, "memory.name")
    where = f"memory ({spec.name})"
    return built(make, spec.parameters, where, loss=loss, embedding_dim=embedding_dim, miner=miner)
