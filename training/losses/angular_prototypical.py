"""Angular prototypical loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.ge2e import build_scale, check_no_references
from training.losses.parts.episodes import rank_within_class
from training.losses.parts.loss_batch import LossBatch


class AngularPrototypical(Loss):
    """One query of each class must be nearest to the mean of that class's other items.

    Formula: ``S_jk = w cos(q_j, p_k) + b``, q_j the first item of class j in the batch, p_k the mean of the
    other items of class k; ``mean_j -S_jj + log sum_k e^{S_jk}`` over the classes with two items or more.

    Shapes: embeddings [n, d], labels [n]. No references.

    Parameters:
        scale: 10 and offset: -5, where the learned w and b start; w is kept as its logarithm, so it stays
            positive.

    Related losses: ge2e takes every item as a query. With two items of each class it is N-pairs on cosines
    with a learned temperature.

    Reference implementation: the clamp of w has no effect there, so that it can become negative.
    """

    name = "angular_prototypical"
    paper = "Chung et al., In Defence of Metric Learning for Speaker Recognition, 2020, arXiv 2003.11982"
    when = "Verification with two or three items of very many classes in a batch."
    takes_references = False
    takes_indices = False
    lr_factor = 1.0

    def __init__(self, scale: float = 10.0, offset: float = -5.0) -> None:
        super().__init__()
        self.log_scale, self.offset = build_scale(scale, offset)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_no_references(self, batch)
        _, codes, counts = torch.unique(batch.labels, return_inverse=True, return_counts=True)
        kept = counts[codes] > 1  # the only one of its class is neither query nor prototype
        if int((counts > 1).sum()) < 2:
            return self.zero_losses()
        items, codes = batch.embeddings[kept], torch.unique(codes[kept], return_inverse=True)[1]
        is_query = rank_within_class(codes) == 0
        query_of = torch.where(kept)[0][is_query][torch.argsort(codes[is_query])]  # of each class
        queries = batch.embeddings[query_of]
        sums = torch.zeros_like(queries).index_add(0, codes[~is_query], items[~is_query])
        logits = self.log_scale.exp() * F.normalize(queries, dim=1) @ F.normalize(sums, dim=1).T + self.offset
        targets = torch.arange(len(queries), device=logits.device)
        return build_element_terms(F.cross_entropy(logits, targets, reduction="none"), query_of)
