"""Adaptive relevance margins."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_scalar_terms
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_mean


class ARM(Loss):
    """The margin of a positive over a negative must be what their own similarity says.

    Formula: ``mean over anchors a, positives p, negatives n of (s_ap - s_an - t)^2``. ``adaptive``: ``t =
    (1 + s_pn) / 2``. ``distributed``: the mean over all items q of other classes than n in place of p, ``t =
    (1 + s_qn) / 2``. Like pairs of positive and negative get a larger margin: hard negatives count more
    without being looked for. There is a slope through t, too.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        form: distributed, the authors' default, or adaptive.

    Related losses: margin_mse, whose target is a teacher's margin; triplet, whose margin is one number.

    Reference implementation: a query with one positive and one negative each, so ``distributed`` has the
    targets of the batch's other queries; their in-batch option subtracts the score of another query's
    negative, by broadcasting along the wrong axis.
    """

    name = "arm"
    paper = "Gienapp et al., Learning Effective Representations for Retrieval Using Self-Distillation, 2024"
    when = "To try in place of distillation where there is no teacher."

    def __init__(self, form: Literal["distributed", "adaptive"] = "distributed") -> None:
        super().__init__(distance=CosineSimilarity())
        if form not in ("distributed", "adaptive"):
            raise ValueError(f"form must be 'distributed' or 'adaptive', found {form!r}")
        self.form = form

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        references = F.normalize(batch.references, dim=1)
        similarity = F.normalize(batch.embeddings, dim=1) @ references.T
        anchors, positives = torch.where(positive)
        if not len(anchors) or not negative[anchors].any():
            return self.zero_losses()
        margins = similarity[anchors, positives][:, None] - similarity[anchors]
        targets = (1 + references @ references.T) / 2
        if self.form == "adaptive":
            errors = (margins - targets[positives]).square()
        else:
            other = batch.reference_labels[:, None] != batch.reference_labels
            count = other.sum(0).clamp(min=1)
            mean = torch.where(other, targets, 0).sum(0) / count
            square = torch.where(other, targets.square(), 0).sum(0) / count
            errors = margins.square() - 2 * margins * mean + square
        return build_scalar_terms(compute_masked_mean(errors, negative[anchors]))
