"""PAMC: contrast of blocks in place of pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.ge2e import check_no_references
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp


class PAMC(Loss):
    """Items near their positives, and the sums of whole classes away from each other.

    Formula: ``mean_i -log mean_p e^{s_ip / t} + mean_c log mean_{c' != c} e^{s_cc' / t}``, s_cc' the cosine
    of the sums of the batch's unit items of two classes: negatives cost classes x classes, not items x items.

    Shapes: embeddings [n, d], labels [n]. No references.

    Parameters:
        temperature: 1, the authors'.

    Related losses: nt_xent compares every two items; proxy_anchor has learned vectors in place of sums.

    Reference implementation: a graph of nearest neighbours says what the positives are, clusters of a fixed
    number what the blocks; both are a class here, or an item where the batch holds two views of each. Sums of
    exponentials there, means here: they differ by a constant.
    """

    name = "pamc"
    paper = "Kulatilleke et al., Efficient Block Contrastive Learning, 2022, arXiv 2209.14067"
    when = "Very large batches, where all pairs of items are too many."
    takes_references = False
    takes_indices = False

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(distance=CosineSimilarity())
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, found {temperature:g}")
        self.temperature = temperature

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_no_references(self, batch)
        items = F.normalize(batch.embeddings, dim=1)
        classes, codes = torch.unique(batch.labels, return_inverse=True)
        order = torch.argsort(codes, stable=True)
        positive = _compute_pulls(items[order], codes[order], self.temperature)
        if not len(positive) or len(classes) < 2:
            return self.zero_losses()
        sums = F.normalize(items.new_zeros(len(classes), items.shape[1]).index_add(0, codes, items), dim=1)
        other = ~torch.eye(len(classes), dtype=torch.bool, device=items.device)
        push = compute_masked_logsumexp(sums @ sums.T / self.temperature, other, dim=1)
        apart = (push - other.sum(1).to(push.dtype).log()).mean()
        return build_element_terms(apart - positive, order[(torch.bincount(codes) > 1)[codes[order]]])


def _compute_pulls(items: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """``log mean_p e^{s_ip / t}`` of every item with a positive; items [n, d] sorted by their class.

    A class at a time, so that no matrix of all items by all items is made.
    """
    parts = []
    for group in torch.split(items, torch.bincount(codes).tolist()):
        if len(group) > 1:
            other = ~torch.eye(len(group), dtype=torch.bool, device=items.device)
            logits = group @ group.T / temperature
            total = compute_masked_logsumexp(logits, other, dim=1)
            parts.append(total - other.sum(1).to(total.dtype).log())
    return torch.cat(parts) if parts else items.new_zeros(0)
