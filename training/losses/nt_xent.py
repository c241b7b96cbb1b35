"""NT-Xent loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms
from training.losses.parts.pair_masks import compute_masked_logsumexp


class NTXent(PairLoss):
    """Each positive must stand out among the anchor's negatives; other positives do not compete with it.

    Formula: ``mean over positive pairs of -log(e^{s_ap / t} / (e^{s_ap / t} + sum_n e^{s_an / t}))``, t the
    temperature; with ``average: anchors`` the mean over each anchor's positives first, then over anchors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.07, the library's. average: pairs, the library's, where an anchor counts as often as it
            has positives; anchors, each counts once (SimCLR's own with two views, where both agree).

    Related losses: SupCon, where positives compete too; averaged by anchors it is the decoupled softmax of
        DEXML.

    Reference implementation: the library's values; it builds a matrix of positive pairs x negative pairs
    (tens of seconds for a batch of 512), here each anchor's negatives are summed once.
    """

    name = "nt_xent"
    paper = "Sohn, NeurIPS 2016; Chen et al., SimCLR, ICML 2020, arXiv 2002.05709"
    when = "One or two positives per item, e.g. two views."

    def __init__(self, temperature: float = 0.07, average: Literal["pairs", "anchors"] = "pairs") -> None:
        super().__init__(distance=CosineSimilarity())
        if average not in ("pairs", "anchors"):
            raise ValueError(f"average must be 'pairs' or 'anchors', found {average!r}")
        self.temperature, self.average = temperature, average

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        if not positive.any() or not negative.any():
            return self.zero_losses()
        logits = matrix / self.temperature
        rivals = compute_masked_logsumexp(logits, negative, dim=1)
        rows, columns = torch.where(positive)
        target = logits[rows, columns]
        losses = torch.logaddexp(target, rivals[rows]) - target
        if self.average == "anchors":
            sums = losses.new_zeros(len(matrix)).index_add(0, rows, losses)
            counts = positive.sum(1)
            return build_element_terms((sums / counts.clamp(min=1))[counts > 0], counts > 0)
        return {"loss": {"losses": losses, "indices": (rows, columns), "reduction_type": "pos_pair"}}
