"""Threshold-consistent margin loss."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Indices, Loss, LossTerms, reduced
from training.losses.parts.pair_masks import masked_mean, pair_masks


class ThresholdConsistentMargin(Loss):
    """Pulls every positive pair above one similarity and pushes every negative pair below another.

    Formula: ``lambda_plus * mean over positive pairs with s <= margin_plus of (margin_plus - s)
    + lambda_minus * mean over negative pairs with s >= margin_minus of (s - margin_minus)``; a mean over no
    pair is 0. Made to be added to another loss, so that one threshold holds for all classes.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        lambda_plus, lambda_minus: 1. margin_plus: 0.9, margin_minus: 0.5, the library's.
        balance: ``pairs`` as above; ``classes`` (ours) takes the mean within each anchor class first, then
            over the classes that have a violating pair, so a large or hard class does not crowd out others.

    Neighbours: the contrastive loss on cosines with both hinges, averaged over violating pairs alone: each
    has the gradient lambda / count however hard it is, so few violating pairs mean large steps each.

    In released code: the library indexes the batch, not ``ref_emb``, when references are given (wrong
    values, or an index error); here they are used. Values agree otherwise.
    """

    paper: ClassVar[str] = "Zhang et al., Threshold-Consistent Margin Loss, ICLR 2024, arXiv 2307.04047"

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

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """The two hinges over the violating pairs."""
        positive, negative = pair_masks(labels, ref_labels, indices_tuple, ref_emb is embeddings)
        similarity = self.distance(embeddings, ref_emb)
        too_far = positive & (similarity <= self.margin_plus)
        too_near = negative & (similarity >= self.margin_minus)
        mean = _mean_of_class_means if self.balance == "classes" else _mean_of_pairs
        return reduced(
            self.lambda_plus * mean(self.margin_plus - similarity, too_far, labels)
            + self.lambda_minus * mean(similarity - self.margin_minus, too_near, labels)
        )


def _mean_of_pairs(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    return masked_mean(values, keep)


def _mean_of_class_means(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    classes, codes = torch.unique(labels, return_inverse=True)
    sums = values.new_zeros(len(classes)).index_add(0, codes, torch.where(keep, values, 0).sum(1))
    counts = values.new_zeros(len(classes)).index_add(0, codes, keep.sum(1).to(values.dtype))
    return masked_mean(sums / counts.clamp(min=1), counts > 0)
