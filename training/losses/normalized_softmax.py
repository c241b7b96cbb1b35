"""Normalised softmax loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, class_means, cosines


class NormalizedSoftmax(ClassVectorLoss):
    """Classification by cosine to one unit vector per class; classes can be added without training.

    Formula: ``mean_i -log softmax_c(w_c . x_i / temperature)_{y_i}``, all of unit length, no bias.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        temperature: 0.05, the library's (Zhai and Wu 2019); 0.1 in the hyperspherical form (2102.03243).

    Neighbours: with a margin on the target it is CosFace or ArcFace; with some of the classes, Partial FC.

    In released code: the library's values; it keeps the vectors as columns, which are slower to normalise.
    """

    paper: ClassVar[str] = "Zhai and Wu, BMVC 2019, arXiv 1811.12649; new classes: arXiv 2102.03243"

    def __init__(self, num_classes: int, embedding_dim: int, temperature: float = 0.05) -> None:
        super().__init__(num_classes)
        weight = torch.empty(num_classes, embedding_dim)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight, mode="fan_out"))
        self.temperature = temperature

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d], not of unit length."""
        return self.weight

    def per_item(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the classes."""
        logits = cosines(embeddings, self.weight) / self.temperature
        return F.cross_entropy(logits, labels, reduction="none")

    def add_classes(self, support: Tensor, labels: Tensor) -> None:
        """Append classes, each by the unit mean of its unit support embeddings; nothing is trained.

        Args:
            support: float [n, d].
            labels: int [n]; 0 is the first new class, and every new class has an item.
        """
        means, _ = class_means(support.detach(), labels, int(labels.max()) + 1)
        old = F.normalize(self.weight.detach(), dim=1)
        self.weight = nn.Parameter(torch.cat([old, means.to(old)]))
        self.num_classes = len(self.weight)
