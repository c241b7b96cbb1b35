"""Partial FC: a margin softmax over some of very many classes, whose vectors are split over processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.margin_softmax import Margin, apply_margin, resolve_margin
from training.runtime.split_sums import (
    compute_max_over_processes,
    count_processes,
    spread_over_processes,
    sum_over_processes,
)

BLOCK = 65_536  # classes whose first vectors come from one seed


class PartialFC(ClassVectorLoss):
    """Margin softmax over the batch's own classes and a random sample of all others.

    Formula: ``mean_i -log softmax_{c in K}(scale * z_ic)_{y_i}``, K = the batch's classes and further ones up
    to ``sample_rate * num_classes``, z the cosines with the base's margin.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references. Memory: two float32
    [num_classes, d] (centres and momentum) and n x the sampled classes, all divided by the number of
    processes: each holds the vectors of its own range of classes, and none ever holds them all.

    Parameters:
        sample_rate: 0.1. base: arcface (cosface, none), margin: its usual one, scale: 64, the authors'.
        filter_above: null; negatives with a larger cosine are left out as likely wrong labels (0.4 in the
            authors' "PFC-0.1*" configurations).
        lr: 0.1, momentum: 0.9, weight_decay: 5e-4, the authors' SGD, for the centres, on the schedule of the
            run.

    Related losses: with sample_rate 1 it is ArcFace or CosFace; below some 100,000 classes prefer those.

    Reference implementation: version 2 keeps all centres in one parameter; those not sampled get a gradient
    of zero, yet momentum and weight decay move them. Here the centres are no parameter: backward passes
    (while the module is in training mode) collect the sampled rows' gradients, and ``end_step`` updates those
    rows and their momentum, nothing else. Theirs samples in each process by itself; here the draw is one over
    all classes, so the run does not depend on the number of processes.
    """

    name = "partial_fc"
    paper = "An et al., Killing Two Birds with One Stone, CVPR 2022, arXiv 2203.15565"
    when = "More than some 100,000 classes."
    vectors = "centers"

    centers: Tensor
    velocity: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        sample_rate: float = 0.1,
        base: Margin = "arcface",
        margin: float | None = None,
        scale: float = 64.0,
        filter_above: float | None = None,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(num_classes)
        if not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate must be above 0 and at most 1, found {sample_rate:g}")
        rank, processes = count_processes()
        self.first = num_classes * rank // processes
        count = num_classes * (rank + 1) // processes - self.first
        self.register_buffer("centers", draw_vectors(self.first, count, embedding_dim), persistent=False)
        self.register_buffer("velocity", torch.zeros(count, embedding_dim), persistent=False)
        self.n_sampled = max(1, round(sample_rate * num_classes))
        self.base, self.margin, self.scale = base, resolve_margin(base, margin), scale
        self.filter_above = filter_above
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.collected: list[tuple[Tensor, Tensor]] = []  # rows and their gradients, since the last step

    @property
    def class_shard(self) -> Mapping[str, Tensor]:
        return {"centers": self.centers, "velocity": self.velocity}

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rows, targets = self.sample_classes(labels)
        sampled = self.centers[rows].requires_grad_(torch.is_grad_enabled())
        if self.training and sampled.requires_grad:
            sampled.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self.collected.append((rows, gradient))
            )
        cosine = compute_cosines(spread_over_processes(embeddings), sampled)
        logits = self.scale * cosine
        own = targets >= 0  # items whose class lies here
        columns = targets.clamp(min=0)
        if len(rows):  # of few classes a process may have sampled none
            margined = apply_margin(cosine, columns, self.base, self.margin)
            logits = self.scale * torch.where(own[:, None], margined, cosine)
        if self.filter_above is not None:
            doubtful = cosine.detach() > self.filter_above
            doubtful[own] = doubtful[own].scatter(1, columns[own, None], False)
            logits = logits.masked_fill(doubtful, torch.finfo(logits.dtype).min)
        return _compute_cross_entropy(logits, columns, own)

    def sample_classes(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sampled classes of this process's range, int [k], ascending, and each label's index among them.

        Indices int [n] are those into the process's own vectors; -1 for a label of another process.
        """
        present = torch.unique(labels)
        if len(present) < self.n_sampled:
            order = torch.rand(self.num_classes, device=labels.device)
            order[present] = 2.0  # beyond every draw: the batch's own classes always come along
            present = order.topk(self.n_sampled).indices.sort().values
        end = self.first + len(self.centers)
        rows = present[(present >= self.first) & (present < end)]
        own = (labels >= self.first) & (labels < end)
        return rows - self.first, torch.where(own, torch.searchsorted(rows, labels), -1)

    @torch.no_grad()
    def end_step(self, lr_factor: float = 1.0) -> None:
        """One step of SGD with momentum on the centres that took part in it alone."""
        if not self.collected:
            return
        parts, gradients = zip(*self.collected, strict=True)
        self.collected.clear()
        rows, positions = torch.unique(torch.cat(parts), return_inverse=True)
        gradient = gradients[0].new_zeros(len(rows), self.centers.shape[1])
        gradient.index_add_(0, positions, torch.cat(gradients))
        rows_now = self.centers[rows]
        velocity = self.momentum * self.velocity[rows] + gradient.to(rows_now) + self.weight_decay * rows_now
        self.velocity[rows] = velocity
        self.centers[rows] = rows_now - self.lr * lr_factor * velocity


def draw_vectors(first: int, count: int, dimension: int) -> Tensor:
    """The vectors that a range of classes starts from, float32 [count, d]; the same in whatever ranges."""
    base = int(torch.randint(2**31, ()))
    blocks = []
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        drawn = torch.randn(BLOCK, dimension, generator=torch.Generator().manual_seed(base + block))
        start = block * BLOCK
        blocks.append(drawn[max(0, first - start) : first + count - start])
    return torch.cat(blocks).mul_(0.01) if blocks else torch.empty(0, dimension)


def _compute_cross_entropy(logits: Tensor, columns: Tensor, own: Tensor) -> Tensor:
    """Float [n, k] of this process's classes to the loss over those of all processes, float [n].

    Args:
        columns: int [n], the target's column where ``own`` bool [n] says that it is here.
    """
    is_empty = not logits.shape[1]
    lowest = logits.new_full((len(logits),), torch.finfo(logits.dtype).min)
    highest = compute_max_over_processes(lowest if is_empty else logits.max(1).values)
    total = sum_over_processes((logits - highest[:, None]).exp().sum(1))
    target = logits.sum(1) if is_empty else torch.where(own, logits.gather(1, columns[:, None])[:, 0], 0)
    return total.log() + highest - sum_over_processes(target)
