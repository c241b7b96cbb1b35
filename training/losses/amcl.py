"""Adaptive multi-head contrastive learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class AMCL(Loss):
    """Several similarities at once, each with a temperature for every pair.

    Formula: ``mean_i sum_c mean_p [-s_c(i, p) / t + beta O(t)] + max_n s_c(i, n) / t' - beta O(t'_n)`` over
    items with a positive and a negative; s_c the cosine in projection c, t and t' temperatures of the pair by
    two small networks of both ends, within limits, ``O(t) = d / 2 log t + 1 / t``, t'_n that of the negative
    which is the largest.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        heads: 3 projections. least: 0.05 and most: 2, the temperatures' limits (1e-5 there). beta: 0.1.
        hidden: 128 numbers within the networks.

    Related losses: isogclr has a temperature for each item; nt_xent one for all.

    Reference implementation: written from the equation alone: the public code does not run as it stands (its
    parameters are in a list for modules), divides similarities by temperatures of another shape, so that each
    pair meets every temperature, and trains another loss than the equation.
    """

    name = "amcl"
    paper = "Wang et al., Adaptive Multi-head Contrastive Learning, ECCV 2024, arXiv 2310.05615"
    when = "For trials alone: the equation pulls harder than it pushes."
    lr_factor = 1.0

    def __init__(
        self,
        embedding_dim: int,
        heads: int = 3,
        least: float = 0.05,
        most: float = 2.0,
        beta: float = 0.1,
        hidden: int = 128,
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if heads < 1 or not 0 < least < most or beta < 0:
            raise ValueError("heads must be at least 1, 0 < least < most, beta not negative")
        self.least, self.most, self.beta, self.dimension = least, most, beta, embedding_dim
        self.projections = nn.ModuleList(
            nn.Linear(embedding_dim, embedding_dim, bias=False) for _ in range(heads)
        )
        self.near = nn.ModuleList(_PairNetwork(embedding_dim, hidden) for _ in range(heads))
        self.far = nn.ModuleList(_PairNetwork(embedding_dim, hidden) for _ in range(heads))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        positive, negative = positive[kept], negative[kept]
        total = batch.embeddings.new_zeros(len(positive))
        for project, near, far in zip(self.projections, self.near, self.far, strict=True):
            items = F.normalize(project(batch.embeddings[kept]), dim=1)
            references = F.normalize(project(batch.references), dim=1)
            cosines = items @ references.T
            warm, cold = self._limit(near(items, references)), self._limit(far(items, references))
            pull = torch.where(positive, -cosines / warm + self.beta * self._charge(warm), 0).sum(1)
            push, column = (cosines / cold).masked_fill(~negative, -torch.inf).max(1)
            chosen = cold.gather(1, column[:, None])[:, 0]
            total = total + pull / positive.sum(1) + push - self.beta * self._charge(chosen)
        return build_element_terms(total)

    def _limit(self, values: Tensor) -> Tensor:
        return self.least + (self.most - self.least) * torch.sigmoid(values)

    def _charge(self, temperature: Tensor) -> Tensor:
        return self.dimension / 2 * temperature.log() + 1 / temperature


class _PairNetwork(nn.Module):
    """A number for every pair from both of its ends: float [n, d] and [m, d] to [n, m]."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dimension, hidden), nn.Linear(dimension, hidden, bias=False)
        self.last = nn.Linear(hidden, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The network of the joined vectors; its first layer is computed for each end once."""
        values: Tensor = self.last(torch.relu(self.first(a)[:, None] + self.second(b)[None]))[:, :, 0]
        return values
