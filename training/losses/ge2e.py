"""Generalised end-to-end loss of speaker verification."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class GE2E(Loss):
    """Each item must be nearer to its class's centroid, computed without it, than to all other centroids.

    Formula: ``S_ik = w cos(x_i, c_k) + b``, c_k the mean of the batch's unit items of class k, for the item's
    own class without the item. ``softmax``: ``mean_i -S_iy + log sum_k e^{S_ik}``; ``contrast``: ``mean_i 1 -
    sigmoid(S_iy) + max_{k != y} sigmoid(S_ik)``. Items that are the only one of their class in the batch are
    no anchors; their class is a rival all the same.

    Shapes: embeddings [n, d], labels [n]. No references.

    Parameters:
        form: softmax, or contrast. scale: 10 and offset: -5, where the learned w and b start; w is kept as
            its logarithm, so it stays positive.

    Related losses: angular_prototypical, one query against the mean of the rest; proto_triplet, the nearest
    wrong prototype alone.

    Reference implementation: the clamp of w in two public ones has no effect, so that it can become negative;
    both also clamp every cosine at 1e-6, so that negatives below it give no gradient. Neither here.
    """

    name = "ge2e"
    paper = "Wan et al., Generalized End-to-End Loss, ICASSP 2018, arXiv 1710.10467"
    when = "Verification of speakers or signatures: few classes with several items each in a batch."
    takes_references = False
    takes_indices = False
    lr_factor = 1.0

    def __init__(
        self, form: Literal["softmax", "contrast"] = "softmax", scale: float = 10.0, offset: float = -5.0
    ) -> None:
        super().__init__()
        if form not in ("softmax", "contrast"):
            raise ValueError(f"form must be 'softmax' or 'contrast', found {form!r}")
        self.form = form
        self.log_scale, self.offset = build_scale(scale, offset)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_no_references(self, batch)
        items = F.normalize(batch.embeddings, dim=1)
        classes, codes, counts = torch.unique(batch.labels, return_inverse=True, return_counts=True)
        is_anchor = counts[codes] > 1
        if len(classes) < 2 or not is_anchor.any():
            return self.zero_losses()
        sums = items.new_zeros(len(classes), items.shape[1]).index_add(0, codes, items)
        cosines = items @ F.normalize(sums, dim=1).T
        own = (items * F.normalize(sums[codes] - items, dim=1)).sum(1, keepdim=True)
        logits = self.log_scale.exp() * cosines.scatter(1, codes[:, None], own) + self.offset
        logits, codes = logits[is_anchor], codes[is_anchor]
        if self.form == "softmax":
            return build_element_terms(F.cross_entropy(logits, codes, reduction="none"), is_anchor)
        chances = logits.sigmoid()
        rival = chances.scatter(1, codes[:, None], -1.0).max(1).values
        return build_element_terms(1 - chances.gather(1, codes[:, None])[:, 0] + rival, is_anchor)


def build_scale(scale: float, offset: float) -> tuple[nn.Parameter, nn.Parameter]:
    """The logarithm of a learned scale, which so stays positive, and a learned offset."""
    if scale <= 0:
        raise ValueError(f"scale must be above 0, found {scale:g}")
    return nn.Parameter(torch.tensor(math.log(scale))), nn.Parameter(torch.tensor(float(offset)))


def check_no_references(loss: Loss, batch: LossBatch) -> None:
    """Raises ValueError for references, which a loss of whole batches has no use for."""
    if batch.has_references:
        raise ValueError(f"{type(loss).__name__} compares the items of a batch; it takes no ref_emb")
