"""Partial FC: a margin softmax over some of very many classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.margin_softmax import Margin, apply_margin, resolve_margin


class PartialFC(ClassVectorLoss):
    """Margin softmax over the batch's own classes and a random sample of all others.

    Formula: ``mean_i -log softmax_{c in K}(scale * z_ic)_{y_i}``, K = the batch's classes and further ones up
    to ``sample_rate * num_classes``, z the cosines with the base's margin.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references. Memory: two float32
    [num_classes, d] (centres and momentum) and n x the sampled classes.

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
    rows and their momentum, nothing else.
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
        self.register_buffer("centers", torch.randn(num_classes, embedding_dim).mul_(0.01))
        self.register_buffer("velocity", torch.zeros(num_classes, embedding_dim))
        self.n_sampled = max(1, round(sample_rate * num_classes))
        self.base, self.margin, self.scale = base, resolve_margin(base, margin), scale
        self.filter_above = filter_above
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.collected: list[tuple[Tensor, Tensor]] = []  # rows and their gradients, since the last step

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rows, targets = self.sample_classes(labels)
        sampled = self.centers[rows].requires_grad_(torch.is_grad_enabled())
        if self.training and sampled.requires_grad:
            sampled.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self.collected.append((rows, gradient))
            )
        cosine = compute_cosines(embeddings, sampled)
        logits = self.scale * apply_margin(cosine, targets, self.base, self.margin)
        if self.filter_above is not None:
            doubtful = (cosine.detach() > self.filter_above).scatter(1, targets[:, None], False)
            logits = logits.masked_fill(doubtful, torch.finfo(logits.dtype).min)
        return F.cross_entropy(logits, targets, reduction="none")

    def sample_classes(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sampled classes, int [k], ascending, and each label's index among them, int [n]."""
        present = torch.unique(labels)
        if len(present) < self.n_sampled:
            order = torch.rand(self.num_classes, device=labels.device)
            order[present] = 2.0  # beyond every draw: the batch's own classes always come along
            present = order.topk(self.n_sampled).indices.sort().values
        return present, torch.searchsorted(present, labels)

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
