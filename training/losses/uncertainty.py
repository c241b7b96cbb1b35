"""Uncertainty regularisation of composed retrieval."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp


class Uncertainty(Loss):
    """Queries must find a blurred target: the loss counts less, the more the targets are blurred.

    Formula: ``(e^{-u} L + u) / 2``, L the mean over positive pairs of ``-log(e^{k x_a . y_p} / (e^{k x_a .
    y_p} + sum_n e^{k x_a . y_n}))``, y the blurred targets and u the standard deviation of all their numbers.
    Of an item f with mean m and standard deviation d over its numbers, ``y = A (f - m) / d + B``, A drawn of
    N(1, d) and B of N(m, d) for each number; in evaluation the means of the two.

    Shapes: embeddings [n, d], labels [n], references [m, d], the targets where they are others.

    Parameters:
        scale: 1, k; x is of unit length.
        Add it to a loss with a falling weight, e.g. ``weight: {start: 1, end: 0.37}`` beside nt_xent with
            ``{start: 0, end: 0.63}``: the authors' e^{-epoch / epochs}.

    Related losses: nt_xent without the blur.

    Reference implementation: the same (one query and one target each), over outputs of any length.
    """

    name = "uncertainty"
    paper = "Chen et al., Composed Image Retrieval with Text Feedback, ICLR 2024, arXiv 2211.07394"
    when = "Composed or vague queries to which several targets are about as right."

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(distance=CosineSimilarity())
        if scale <= 0:
            raise ValueError(f"scale must be above 0, found {scale:g}")
        self.scale = scale

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        if not positive.any() or not negative.any():
            return self.zero_losses()
        blurred = self._blur(F.normalize(batch.references, dim=1))
        logits = self.scale * F.normalize(batch.embeddings, dim=1) @ blurred.T
        rows, columns = torch.where(positive)
        target = logits[rows, columns]
        losses = torch.logaddexp(target, compute_masked_logsumexp(logits, negative, dim=1)[rows]) - target
        spread = (blurred.var() + 1e-12).sqrt()  # a root has no finite slope at 0
        return build_element_terms((torch.exp(-spread) * losses + spread) / 2, rows)

    def _blur(self, items: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(items, dim=1, keepdim=True)
        centred = (items - mean) / (items.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        if not self.training:
            return centred + mean
        with torch.no_grad():  # drawn as samples there, without a slope
            factor = 1 + deviation * torch.randn_like(items)
            shift = mean + deviation * torch.randn_like(items)
        return factor * centred + shift
