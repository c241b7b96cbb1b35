"""NT-Xent loss."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, LossTerms, PairLoss
from training.losses.parts.pair_masks import compute_masked_logsumexp


class NTXent(PairLoss):
    """Each positive must stand out among the anchor's negatives; other positives do not compete with it.

    Formula: ``mean over positive pairs of -log(e^{s_ap / t} / (e^{s_ap / t} + sum_n e^{s_an / t}))``, t the
    temperature.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.07, the library's.

    Related losses: SupCon, where positives compete too; the decoupled softmax of DEXML is this, averaged per
        anchor first.

    Reference implementation: the library's values; it builds a matrix of positive pairs x negative pairs
    (tens of seconds for a batch of 512), here each anchor's negatives are summed once.
    """

    name = "nt_xent"
    paper = "Sohn, NeurIPS 2016; Chen et al., SimCLR, ICML 2020, arXiv 2002.05709"
    when = "One or two positives per item, e.g. two views."

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(distance=CosineSimilarity())
        self.temperature = temperature

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        if not positive.any() or not negative.any():
            return self.zero_losses()
        logits = matrix / self.temperature
        rivals = compute_masked_logsumexp(logits, negative, dim=1)
        rows, columns = torch.where(positive)
        target = logits[rows, columns]
        losses = torch.logaddexp(target, rivals[rows]) - target
        return {"loss": {"losses": losses, "indices": (rows, columns), "reduction_type": "pos_pair"}}
