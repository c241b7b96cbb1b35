"""Margin-MSE distillation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.ckd import check_teacher
from training.losses.parts.loss_batch import LossBatch


class MarginMSE(Loss):
    """A positive must be nearer than a negative by as much as it is to the teacher.

    Formula: ``mean over anchors a, of the mean over positives p and negatives n of ((s_ap - s_an) - (t_ap -
    t_an))^2``, s the network's cosines and t the teacher's. Only similarities are compared, so the teacher's
    features may have any length.

    Shapes: embeddings [n, d], labels [n]; references [n, d_t] are the teacher's features of the items.
    Without a teacher its margin is 1 for every triplet.

    Parameters:
        none.

    Related losses: triplet, whose margin is one number; ckd, which compares each item with itself.

    Reference implementation: one negative a query, scores that are dot products of raw vectors; here all
    triplets of the batch at the cost of its pairs, ``mean (x_p - y_n)^2 = mean x^2 - 2 mean x mean y + mean
    y^2``.
    """

    name = "margin_mse"
    paper = "Hofstätter et al., Cross-Architecture Knowledge Distillation, 2020, arXiv 2010.02666"
    when = "To follow a teacher of another size where classes are known; keeps its gradation of similarities."
    takes_references = False
    takes_indices = False
    follows_teacher = True
    needs_teacher = True
    takes_any_size = True

    def __init__(self) -> None:
        super().__init__()

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.labels[:, None] == batch.labels, batch.labels[:, None] != batch.labels
        positive.fill_diagonal_(False)
        is_anchor = positive.any(1) & negative.any(1)
        if not is_anchor.any():
            return self.zero_losses()
        items, teacher = F.normalize(batch.embeddings, dim=1), check_teacher(self, batch)
        given = positive.to(items.dtype)
        if batch.has_references:
            unit = F.normalize(teacher, dim=1)
            given = (unit @ unit.T).to(items.dtype)
        off = items @ items.T - given
        p, p_squared = _mean_rows(off, positive), _mean_rows(off.square(), positive)
        n, n_squared = _mean_rows(off, negative), _mean_rows(off.square(), negative)
        return build_element_terms((p_squared - 2 * p * n + n_squared)[is_anchor], is_anchor)


def _mean_rows(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the kept entries of each row, float [n]; 0 where there is none."""
    return torch.where(keep, values, 0).sum(1) / keep.sum(1).clamp(min=1)
