"""Adaptive multi-head contrastive learning."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class AMCL(Loss):
    """Several similarities at once, with a temperature for every pair that says how far it is to be trusted.

    Formula: ``mean_i sum_c mean_p [-s_ip / t_ip + beta (d / 2 log t_ip + 1 / t_ip)] + mean_n s_in / t_in -
    beta sum_n [log t_in + 1 / t_in]`` over items with a positive p and a negative, n the item's nearest
    negatives, s the cosine of ``z_c``, projection c of the embedding, the first of which is the embedding
    itself. ``t_ij = least + (most - least) sigmoid(-f(z_ci) . f(z_cj))``; f is one small network for all
    projections and for both kinds of pairs: a temperature must not know which kind its pair is, else it is
    low for all positives, high for all negatives, and everything is pulled together.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        heads: 3 projections, the embedding among them. least: 0.05 and most: 2, the temperatures' limits
            (1e-5 there, with gradients cut at length 1). beta: 1e-4. nearest: 0.1 of an item's negatives
            count, at least one (100 of 1,022 there); all of them can be content with two opposite heaps.
            hidden: 128 numbers within f.

    Related losses: isogclr has a temperature for each item; nt_xent one for all.

    Reference implementation: the same loss for two views; projections of two layers start from what comes out
    of the backbone and are thrown away; here they are a matrix each from the embedding, which is what is
    served, and so is one of them. An earlier form of the code had networks of their own for positive and
    negative pairs, and does not run.
    """

    name = "amcl"
    paper = "Wang et al., Adaptive Multi-head Contrastive Learning, ECCV 2024, arXiv 2310.05615"
    when = "For trials alone: linear in the cosines, it learns far more slowly than nt_xent."
    lr_factor = 1.0

    def __init__(
        self,
        embedding_dim: int,
        heads: int = 3,
        least: float = 0.05,
        most: float = 2.0,
        beta: float = 1e-4,
        nearest: float = 0.1,
        hidden: int = 128,
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if min(heads, hidden) < 1 or not 0 < least < most or beta < 0 or not 0 < nearest <= 1:
            raise ValueError(
                "heads and hidden must be at least 1, 0 < least < most, beta not negative, 0 < nearest <= 1"
            )
        self.least, self.most, self.beta, self.dimension = least, most, beta, embedding_dim
        self.nearest = nearest
        further = (nn.Linear(embedding_dim, embedding_dim, bias=False) for _ in range(heads - 1))
        self.projections = nn.ModuleList([nn.Identity(), *further])
        self.trust = nn.Sequential(
            nn.Linear(embedding_dim, hidden), nn.ReLU(), nn.Linear(hidden, embedding_dim)
        )

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        positive, negative = positive[kept], negative[kept]
        counts = (self.nearest * negative.sum(1).double()).long().clamp(min=1)
        is_near = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        total = batch.embeddings.new_zeros(len(positive))
        for project in self.projections:
            items = F.normalize(project(batch.embeddings[kept]), dim=1)
            references = F.normalize(project(batch.references), dim=1)
            cosines = items @ references.T
            scores = self.trust(items) @ self.trust(references).T
            temperature = self.least + (self.most - self.least) * torch.sigmoid(-scores)
            charge = self.dimension / 2 * temperature.log() + 1 / temperature
            pull = torch.where(positive, self.beta * charge - cosines / temperature, 0).sum(1)

            order = cosines.detach().masked_fill(~negative, -torch.inf)
            rivals = order.topk(is_near.shape[1], dim=1).indices
            warm = temperature.gather(1, rivals)
            push = torch.where(is_near, cosines.gather(1, rivals) / warm, 0).sum(1) / counts
            relief = torch.where(is_near, warm.log() + 1 / warm, 0).sum(1)
            total = total + pull / positive.sum(1) + push - self.beta * relief
        return build_element_terms(total, kept)
