"""SoftTriple loss."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import SoftTripleLoss
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms
from training.losses.class_vector_base import check_class_codes
from training.losses.parts.loss_batch import LossBatch


class SoftTriple(Loss, SoftTripleLoss):
    """Several centres per class; an item's similarity to a class is a soft maximum over its centres.

    Formula: ``S_c = sum_k softmax_k(x.w_ck / gamma) x.w_ck``; cross-entropy of
    ``scale * (S - margin * 1[c = y])``, plus ``tau * mean over centre pairs of a class of sqrt(2 - 2 w.w')``.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        centers_per_class: 10. scale: 20, gamma: 0.1, margin: 0.01, the authors'.
        tau: 0.2, the authors'; the library leaves it out unless given a regulariser.

    Related losses: with one centre per class it is normalised softmax with a margin.

    Reference implementation: the library's, and the regulariser of the authors' code (over C K (K - 1)
    terms).
    """

    name = "soft_triple"
    paper = "Qian et al., SoftTriple, ICCV 2019, arXiv 1909.05235"
    when = "Classes of several looks (centres per class), a few hundred classes."
    positive = Loss.positive | {"gamma", "centers_per_class"}
    takes_references = False
    lr_factor = 100.0

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        centers_per_class: int = 10,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            embedding_size=embedding_dim,
            centers_per_class=centers_per_class,
            la=scale,
            gamma=gamma,
            margin=margin,
        )
        self.tau = tau
        self.classes, self.centers = num_classes, centers_per_class

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """The library's terms and the regulariser, added to each item so that the mean holds it once."""
        check_class_codes(batch.labels, self.classes)
        terms = super().compute_terms(batch)
        if self.tau and self.centers > 1:
            terms["loss"]["losses"] = terms["loss"]["losses"] + self.tau * self.compute_regularizer()
        return terms

    def compute_regularizer(self) -> Tensor:
        """Mean distance between the centres of a class: small when it needs fewer of them."""
        centers = F.normalize(self.get_parameter("fc"), dim=0).T
        centers = centers.view(self.classes, self.centers, -1)
        upper = torch.triu_indices(self.centers, self.centers, offset=1, device=centers.device)
        cosine = (centers @ centers.transpose(1, 2))[:, upper[0], upper[1]]
        roots = (2 - 2 * cosine + 1e-5).sqrt()  # the authors' floor: coinciding centres have no slope
        return roots.sum() / (self.classes * self.centers * (self.centers - 1))
