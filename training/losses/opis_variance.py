"""Variance over classes of soft error rates: OPIS as a regulariser."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_scalar_terms
from training.losses.class_vector_base import check_class_codes
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import select_quantile

MEMORY = 0.95  # of the running thresholds: about the last 20 batches


class OPISVariance(Loss):
    """Moves every class's false accept and false reject rate towards the mean over classes.

    Formula: ``mean over thresholds t and the batch's classes c of (FAR_c(t) - mean FAR(t))^2 + (FRR_c(t) -
    mean FRR(t))^2``, with soft counts: ``FAR_c(t)`` is the mean of sigmoid((s - t) / softness) over the
    negative pairs with an anchor in c, ``FRR_c(t)`` the mean of sigmoid((t - s) / softness) over its positive
    pairs. The t are the similarities at which the batches' pooled FAR is 10 % to 1 %, evenly in log FAR, as
    running means without gradient.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1, references [m, d].

    Parameters:
        softness: 0.05, in units of cosine. thresholds: 5. decay: 0.9, of a class's earlier counts each time
            that a batch holds it; a batch has too few pairs of a class to tell its rates. Rates and their
            means are over the counts with memory, the slope is that of the batch's own rates.

    Related losses: threshold_consistent_margin, which lowers errors and does not ask of which class. Alone it
    is 0 where all items coincide: add it to another loss, with a weight.

    Reference implementation: none, ours. OPIS is the variance of a utility of both rates over the same range
    (specification, Consistency); the rates themselves have slopes where the utility has none.
    """

    name = "opis_variance"
    paper = "ours, after OPIS: Zhang et al., ICLR 2024, arXiv 2307.04047"
    when = "To be tried beside another loss; it has not been shown to even out classes. Never alone."

    levels: Tensor
    quantiles: Tensor
    sums: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(
        self, num_classes: int, softness: float = 0.05, thresholds: int = 5, decay: float = 0.9
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if softness <= 0 or thresholds < 2 or not 0 <= decay < 1:
            raise ValueError("softness must be above 0, thresholds at least 2, decay from 0 to below 1")
        self.num_classes, self.softness, self.decay = num_classes, softness, decay
        self.register_buffer("levels", torch.logspace(-1, -2, thresholds), persistent=False)
        self.register_buffer("quantiles", torch.zeros(thresholds))
        self.register_buffer("sums", torch.zeros(2, num_classes, thresholds))  # FAR, then FRR
        self.register_buffer("counts", torch.zeros(2, num_classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_class_codes(batch.labels, self.num_classes)
        positive, negative = batch.build_pair_masks()
        similarity = self.distance(batch.embeddings, batch.references)
        learns = self.training and torch.is_grad_enabled() and not batch.has_references
        at = self._compute_thresholds(similarity.detach(), negative, learns)
        classes, codes = torch.unique(batch.labels, return_inverse=True)
        terms = []
        for side, pairs in ((0, negative), (1, positive)):
            sign = 1.0 if side == 0 else -1.0
            wrong = torch.sigmoid(sign * (similarity[:, :, None] - at) / self.softness)  # [n, m, t]
            per_anchor = torch.where(pairs[:, :, None], wrong, 0).sum(1)
            sums = per_anchor.new_zeros(len(classes), len(at)).index_add(0, codes, per_anchor)
            counts = sums.new_zeros(len(classes)).index_add(0, codes, pairs.sum(1).to(sums.dtype))
            terms.append(self._compute_deviation(side, classes, sums, counts, learns))
        if learns:
            self.steps += 1
        return build_scalar_terms(torch.stack(terms).sum())

    def _compute_deviation(
        self, side: int, classes: Tensor, sums: Tensor, counts: Tensor, learns: bool
    ) -> Tensor:
        """Mean squared distance of the classes' rates from the mean over all classes seen so far.

        Args:
            sums: float [c, t], soft errors of each class in the batch. counts: float [c], its pairs.
        """
        all_sums = self.sums[side].to(sums.dtype, copy=True)
        all_counts = self.counts[side].to(sums.dtype, copy=True)
        kept = counts > 0
        with torch.no_grad():
            all_sums[classes[kept]] = self.decay * all_sums[classes[kept]] + sums[kept]
            all_counts[classes[kept]] = self.decay * all_counts[classes[kept]] + counts[kept]
            seen = all_counts > 0
            rates = all_sums / all_counts.clamp(min=1e-12)[:, None]
            mean = rates[seen].mean(0) if seen.any() else rates.new_zeros(rates.shape[1])
            if learns:
                self.sums[side], self.counts[side] = all_sums, all_counts
        if not kept.any():
            return 0 * sums.sum()
        own = sums[kept] / counts[kept][:, None]
        now = rates[classes[kept]] + own - own.detach()  # the value with memory, the slope of the batch
        return (now - mean).square().mean()

    @torch.no_grad()
    def _compute_thresholds(self, similarity: Tensor, negative: Tensor, learns: bool) -> Tensor:
        """Similarities at the levels of pooled FAR, float [t]; a batch before any other gives its own."""
        running, is_first = self.quantiles.to(similarity.dtype), int(self.steps) == 0
        if is_first or learns:
            values = similarity[negative]
            own = [
                select_quantile(values, 1 - level, running[i]) for i, level in enumerate(self.levels.tolist())
            ]
            now = torch.stack(own)
            running = now if is_first else MEMORY * running + (1 - MEMORY) * now
            if learns:
                self.quantiles.copy_(running)
        return running
