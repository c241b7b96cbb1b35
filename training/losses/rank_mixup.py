"""RankMixup for similarities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class RankMixup(Loss):
    """A mixture of a positive and a hard negative must match less, the more of the negative is in it.

    Formula: ``mean over positive pairs of sum_k [s(a, v_{k+1}) - s(a, v_k) + margin (r_k - r_{k+1})]_+``,
    ``v_k = r_k p + (1 - r_k) n`` brought to unit length, ``1 = r_0 > r_1 > ...`` the ratios and n the
    anchor's nearest negative.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.2 in cosine for a whole step from the positive to the negative. ratios: [0.75, 0.5]. As a
            term beside another loss; the authors' weight is 0.1.

    Related losses: triplet is ``ratios: [0]``; Metrix weighs mixtures by their label, here they are ordered.

    Reference implementation: inputs are mixed and the largest of the class outputs are compared, with a
    margin of 1 or 2 on them; here unit embeddings, and cosines.
    """

    name = "rank_mixup"
    paper = "Noh et al., RankMixup, ICCV 2023, arXiv 2308.11990"
    when = "Added to another loss where probabilities of a match are over-confident. Never alone."

    def __init__(self, margin: float = 0.2, ratios: Sequence[float] = (0.75, 0.5)) -> None:
        super().__init__(distance=CosineSimilarity())
        steps = [1.0, *ratios]
        if margin < 0 or len(steps) < 2 or steps[-1] < 0 or any(a <= b for a, b in pairwise(steps)):
            raise ValueError("margin must not be negative, ratios must fall from below 1 to 0 at the lowest")
        self.margin, self.ratios = margin, steps

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        anchors, positives = torch.where(positive & negative.any(1)[:, None])
        if not len(anchors):
            return self.zero_losses()
        items, references = F.normalize(batch.embeddings, dim=1), F.normalize(batch.references, dim=1)
        similarity = items @ references.T
        nearest = similarity.detach().masked_fill(~negative, -torch.inf).argmax(1)[anchors]
        p, n = similarity[anchors, positives], similarity[anchors, nearest]
        between = (references @ references.T)[positives, nearest]
        scores = [_compare_mixture(p, n, between, ratio) for ratio in self.ratios]
        steps = zip(pairwise(scores), pairwise(self.ratios), strict=True)
        losses = [(low - high + self.margin * (a - b)).clamp(min=0) for (high, low), (a, b) in steps]
        return build_element_terms(torch.stack(losses).sum(0), anchors)


def _compare_mixture(p: Tensor, n: Tensor, between: Tensor, ratio: float) -> Tensor:
    """Cosine of the anchor to ``r p + (1 - r) n``, from its cosines to both and theirs to each other."""
    length = ratio**2 + (1 - ratio) ** 2 + 2 * ratio * (1 - ratio) * between
    return (ratio * p + (1 - ratio) * n) / (length.clamp(min=0) + 1e-12).sqrt()
