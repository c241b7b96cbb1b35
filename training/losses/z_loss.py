"""Z-loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss


class ZLoss(ClassVectorLoss):
    """The target's output must stand out from all outputs, in standard deviations.

    Formula: ``mean_i softplus(a (b - z_iy)) / a``, ``z_i = (o_i - mean(o_i)) / std(o_i)``, ``o = W x``.
    Shifting or scaling the outputs changes nothing.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        a: 1, b: 0 (what the reference code does). With C classes z is at most sqrt(C - 1), so b above that
            is never reached.

    Related losses: softmax cross-entropy, whose scale matters; this one needs only sums over the outputs, so
        its cost can be made independent of the number of classes.

    Reference implementation: std + 1e-12, whose slope is not finite where all outputs are equal; here the
    root of variance + 1e-12.
    """

    name = "z_loss"
    paper = "de Brébisson and Vincent, The Z-loss, 2016, arXiv 1604.08859"
    when = "Outputs whose scale must not matter."
    vectors = "weight"

    def __init__(self, num_classes: int, embedding_dim: int, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__(num_classes)
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_dim) / embedding_dim**0.5)
        self.a, self.b = a, b

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        outputs = F.normalize(embeddings, dim=1) @ self.weight.to(embeddings.dtype).T
        centred = outputs - outputs.mean(1, keepdim=True)
        deviation = (centred.square().mean(1) + 1e-12).sqrt()
        z = centred.gather(1, labels[:, None])[:, 0] / deviation
        return F.softplus(self.a * (self.b - z)) / self.a
