"""SFace loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines


class SFace(ClassVectorLoss):
    """Pulls an item to its class vector and pushes it from the others, each until near enough; no softmax.

    Formula: ``mean_i [ -r_in(theta_y) scale cos theta_y + sum_{c != y} r_out(theta_c) scale cos theta_c ]``,
    ``r_in(t) = 1 / (1 + e^{-k (t - inner)})``, ``r_out(t) = 1 / (1 + e^{k (t - outer)})``, both without
    gradient: they rescale the gradient, so the value itself means little.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        scale: 64, k: 80, the authors'. inner: 0.87, outer: 1.20 radians, their choice for CASIA-WebFace
            (0.88 and 1.25 for VGGFace2, 0.90 and 1.20 for MS1MV2).

    Related losses: ArcFace and CosFace, which pull and push without end; robust to wrong labels for it.

    Reference implementation: acos without a clamp, NaN once float32 makes a cosine larger than 1; clamped
    here.
    """

    name = "sface"
    paper = "Zhong et al., SFace, IEEE TIP 2021, arXiv 2205.12010"
    when = "Wrong labels in the training data: it does not pull or push without end."
    vectors = "weight"

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        k: float = 80.0,
        inner: float = 0.87,
        outer: float = 1.2,
    ) -> None:
        super().__init__(num_classes)
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(num_classes, embedding_dim), gain=2))
        self.scale, self.k, self.inner, self.outer = scale, k, inner, outer

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosine = compute_cosines(embeddings, self.weight)
        angle = torch.acos(cosine.detach().clamp(-1, 1))
        pull = torch.sigmoid(self.k * (angle.gather(1, labels[:, None]) - self.inner))
        factors = torch.sigmoid(-self.k * (angle - self.outer)).scatter(1, labels[:, None], -pull)
        return self.scale * (factors * cosine).sum(1)
