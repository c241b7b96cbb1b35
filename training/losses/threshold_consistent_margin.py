"""Threshold-consistent margin loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_scalar_terms
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_mean


class ThresholdConsistentMargin(Loss):
    """Pulls every positive pair above one similarity and pushes every negative pair below another.

    Formula: ``lambda_plus * mean over positive pairs with s <= margin_plus of (margin_plus - s)
    + lambda_minus * mean over negative pairs with s >= margin_minus of (s - margin_minus)``; a mean over no
    pair is 0. Made to be added to another loss, so that one threshold holds for all classes.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        lambda_plus, lambda_minus: 1. margin_plus: 0.9, margin_minus: 0.5, the library's.
        balance: ``pairs`` as above; ``classes`` (ours) takes the mean within each anchor class first, then
            over the classes that have a violating pair, so that no large or hard class outweighs the rest.

    Related losses: the contrastive loss on cosines with both hinges, averaged over violating pairs alone:
    each has the gradient lambda / count however hard it is, so few violating pairs mean large steps each.

    Reference implementation: the library indexes the batch, not ``ref_emb``, when references are given (wrong
    values, or an index error); here they are used. Values agree otherwise.
    """

    name = "threshold_consistent_margin"
    paper = "Zhang et al., Threshold-Consistent Margin Loss, ICLR 2024, arXiv 2307.04047"
    when = "Added to another loss when one threshold must hold for all classes."

    def __init__(
        self,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float = 0.9,
        margin_minus: float = 0.5,
        balance: Literal["pairs", "classes"] = "pairs",
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if balance not in ("pairs", "classes"):
            raise ValueError(f"balance must be 'pairs' or 'classes', found {balance!r}")
        self.lambda_plus, self.lambda_minus = lambda_plus, lambda_minus
        self.margin_plus, self.margin_minus = margin_plus, margin_minus
        self.balance = balance

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        similarity = self.distance(batch.embeddings, batch.references)
        too_far = positive & (similarity <= self.margin_plus)
        too_near = negative & (similarity >= self.margin_minus)
        compute_mean = _compute_class_balanced_mean if self.balance == "classes" else _compute_pair_mean
        return build_scalar_terms(
            self.lambda_plus * compute_mean(self.margin_plus - similarity, too_far, batch.labels)
            + self.lambda_minus * compute_mean(similarity - self.margin_minus, too_near, batch.labels)
        )


def _compute_pair_mean(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    return compute_masked_mean(values, keep)


def _compute_class_balanced_mean(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    classes, codes = torch.unique(labels, return_inverse=True)
    sums = values.new_zeros(len(classes)).index_add(0, codes, torch.where(keep, values, 0).sum(1))
    counts = values.new_zeros(len(classes)).index_add(0, codes, keep.sum(1).to(values.dtype))
    return compute_masked_mean(sums / counts.clamp(min=1), counts > 0)
