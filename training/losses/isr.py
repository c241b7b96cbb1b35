"""Reliability-weighted positives."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_scalar_terms
from training.losses.ge2e import check_no_references
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp


class ISR(PairLoss):
    """Positives that both ends would choose count fully, doubtful ones little.

    Formula: ``sum over positive pairs of r_ap l_ap / sum r_ap``, ``l_ap = -log q_ap``, ``q_ap = e^{s_ap / t}
    / (e^{s_ap / t} + sum_n e^{s_an / t})`` and ``r_ap = q_ap q_pa`` without gradient, t the temperature: how
    sure each end is of the other among its negatives.

    Shapes: embeddings [n, d], labels [n]. No references.

    Parameters:
        temperature: 0.1. power: 1 of r; 0 counts all positives alike, which is nt_xent.

    Related losses: nt_xent; bad pairs are also found over time, by ``bad_pairs`` of the configuration.

    Reference implementation: none public, and the abstract alone was read: positives are the same person in
    neighbouring frames, found by bipartite matching, and a reliability weighs them. The weight here is ours.
    """

    name = "isr"
    paper = "after Dou et al., Identity-Seeking Self-Supervised Learning, ICCV 2023, arXiv 2308.08887"
    when = "Labels that are guesses, such as tracks of a video or clusters: wrong positives among right ones."
    takes_references = False

    def __init__(self, temperature: float = 0.1, power: float = 1.0) -> None:
        super().__init__(distance=CosineSimilarity())
        if temperature <= 0 or power < 0:
            raise ValueError("temperature must be above 0, power at least 0")
        self.temperature, self.power = temperature, power

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_no_references(self, batch)
        return super().compute_terms(batch)

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        if not positive.any() or not negative.any():
            return self.zero_losses()
        logits = matrix / self.temperature
        rivals = compute_masked_logsumexp(logits, negative, dim=1)[:, None]
        losses = torch.logaddexp(logits, rivals) - logits
        reliability = (-self.power * (losses + losses.T).detach()).exp()
        weights = torch.where(positive, reliability, 0)
        weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        return build_scalar_terms((weights * torch.where(positive, losses, 0)).sum())
