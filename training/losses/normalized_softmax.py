"""Normalised softmax loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, compute_class_means, compute_cosines


class NormalizedSoftmax(ClassVectorLoss):
    """Classification by cosine to one unit vector per class; classes can be added without training.

    Formula: ``mean_i -log softmax_c(w_c . x_i / temperature)_{y_i}``, all of unit length, no bias.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        temperature: 0.05, the library's (Zhai and Wu 2019); 0.1 in the hyperspherical form (2102.03243).

    Related losses: with a margin on the target it is CosFace or ArcFace; with some of the classes, Partial
    FC.

    Reference implementation: the library's values; it keeps the vectors as columns, which are slower to
    normalise.
    """

    name = "normalized_softmax"
    paper = "Zhai and Wu, BMVC 2019, arXiv 1811.12649; new classes: arXiv 2102.03243"
    when = "A strong, simple classifier; new classes are added by their mean."
    vectors = "weight"

    def __init__(self, num_classes: int, embedding_dim: int, temperature: float = 0.05) -> None:
        super().__init__(num_classes)
        weight = torch.empty(num_classes, embedding_dim)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight, mode="fan_out"))
        self.temperature = temperature

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = compute_cosines(embeddings, self.weight) / self.temperature
        return F.cross_entropy(logits, labels, reduction="none")

    def add_classes(self, support: Tensor, labels: Tensor) -> None:
        """Append classes, each by the unit mean of its unit support embeddings; nothing is trained.

        Args:
            support: float [n, d].
            labels: int [n]; 0 is the first new class, and every new class has an item.
        """
        means, _ = compute_class_means(support.detach(), labels, int(labels.max()) + 1)
        old = F.normalize(self.weight.detach(), dim=1)
        self.weight = nn.Parameter(torch.cat([old, means.to(old)]))
        self.num_classes = len(self.weight)
