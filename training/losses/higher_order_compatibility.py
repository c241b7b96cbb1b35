"""Higher-order compatibility: the contrastive term between a new model and the one that made the gallery."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.ckd import check_teacher
from training.losses.parts.loss_batch import LossBatch


class HigherOrderCompatibility(Loss):
    """The old embedding of each item must be nearest to the new one of the same item, not to another class.

    Formula: ``mean_i -log(e^{w cos(o_i, x_i)} / (e^{w cos(o_i, x_i)} + sum_{j: y_j != y_i} e^{w cos(o_i,
    x_j)}))``, o the old model's embeddings, which are the anchors, x the new ones. The paper's loss is ``0.1
    d_simplex + 0.9`` of this, with the corners of the old model kept (``corners_from``).

    Shapes: embeddings [n, d], labels [n]; references [n, d] are the old model's embeddings of the items.
    Without a teacher they are the items themselves, without gradient.

    Parameters:
        scale: 10, w.

    Related losses: ckd has the new embeddings as anchors, any length and a queue, and pushes items of one
    class apart; backward_compatible follows the old class means.

    Reference implementation: other items of the class are set to 0 before the softmax, so that they count as
    e^0, and the own positive is lost from the denominator; here they are left out and it stays.
    """

    name = "higher_order_compatibility"
    paper = "Biondi et al., Stationary Representations, CVPR 2024, arXiv 2405.02581"
    when = (
        "With teacher: the old bundle, so that a new model can query its gallery without embedding it again."
    )
    takes_references = False
    takes_indices = False
    follows_teacher = True
    needs_teacher = True

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be above 0, found {scale:g}")
        self.scale = scale

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        old = F.normalize(check_teacher(self, batch), dim=1)
        cosines: Tensor = old.to(batch.embeddings.dtype) @ F.normalize(batch.embeddings, dim=1).T
        others = batch.labels[:, None] == batch.labels
        others.fill_diagonal_(False)
        logits = (self.scale * cosines).masked_fill(others, -torch.inf)
        targets = torch.arange(len(logits), device=logits.device)
        return build_element_terms(F.cross_entropy(logits, targets, reduction="none"))
