"""Class-specific embedding loss of LMPT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines


class LMPT(ClassVectorLoss):
    """Hinges on the distance to class vectors, with a wider margin and more weight for rare classes.

    Formula: ``mean_i C sum_c w_c l_ic``, ``l_ic = 1 - s_ic`` for the item's own class, ``[margin / n_c^{1/4}
    - (1 - s_ic)]_+`` for others, ``w_c = n_c^{-gamma} / sum_c n_c^{-gamma}``, s the cosine to the class
    vector, n_c the training items of the class.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        margin: 1 (0.2 in the authors' runs, on raw products). gamma: 0.5; their 2 leaves a class of 100 items
            a ten thousandth of the weight of one with a single item.

    Related losses: proxy_anchor; mean_field_contrastive has one margin and no weights.

    Reference implementation: not followed. In it the hinge holds for the own class alone, and class counts
    are overwritten in every step; its vectors are prompts and captions of a language model, here they are
    learned. What stands here is the equation of the abstract: class-aware soft margin and re-weighting.
    """

    name = "lmpt"
    paper = "after Xia et al., LMPT, 2023, arXiv 2305.04536"
    when = "Class sizes that differ by an order of magnitude, with a vector for each class."
    vectors = "proxies"

    margins: Tensor
    class_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        class_sizes: Sequence[int],
        margin: float = 1.0,
        gamma: float = 0.5,
    ) -> None:
        super().__init__(num_classes)
        if not 0 < margin <= 2 or gamma < 0:
            raise ValueError("margin must be above 0 and at most 2, gamma at least 0")
        sizes = torch.tensor(class_sizes, dtype=torch.float64)
        weights = sizes**-gamma
        self.register_buffer("margins", margin / sizes**0.25, persistent=False)
        self.register_buffer("class_weights", num_classes * weights / weights.sum(), persistent=False)
        self.proxies = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distances = 1 - compute_cosines(embeddings, self.proxies)
        own = F.one_hot(labels, self.num_classes).bool()
        losses = torch.where(own, distances, (self.margins.to(distances) - distances).clamp(min=0))
        return (self.class_weights.to(distances) * losses).sum(1)
