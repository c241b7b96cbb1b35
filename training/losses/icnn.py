"""Inter- and intra-class nearest-neighbour loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_scalar_terms
from training.losses.parts.episodes import check_shots, split_episode
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_squared_distances

NEAREST = 1e-6  # under the root, as in the authors' code
EPSILON = 1e-7


class ICNN(Loss):
    """Minus log of a score of each neighbourhood: near positives, far negatives, many positives.

    Formula: over the k nearest neighbours j of each i (without itself), ``r_ij = d_ij / (distance to the
    nearest negative among the first ``reach`` neighbours)``, divided by ``max(1, max_j r_ij)``; ``same = 1 -
    mean_i mean_{positives j} r_ij``; ``different = mean_i mean_{negatives j} d_ij / max d``, or 1 without
    negatives; ``score = ((same + different) / 2 + fraction of positives) / 2``.

    Shapes: embeddings [n, d], labels [n], references [m, d] hold the neighbours; without references the
    batch does. A miner's indices are not used: neighbourhoods are the mining.

    Parameters:
        k: 4, the authors'. reach: k + 1 unless given (shots + queries in their full-batch form).
        shots: null; with a number the first ``shots`` items of each class in the batch are the support and
            hold the neighbours of the others, the queries (sampler ``episodic``).

    Related losses: NCA with a soft neighbourhood. The choice of neighbours and the fraction of positives have
    no gradient; the fraction only moves the value.

    Reference implementation: the same values for unit vectors; epsilons of 1e-7 in the quotients as there.
    Batches of fewer than k + 3 items use n - 2 neighbours and a fraction of 1. Against a support, theirs
    drops each query's nearest neighbour as if it were the query itself; here it counts.
    """

    name = "icnn"
    paper = "Mendez-Ruiz et al., SuSana Distancia is All You Need, 2023, arXiv 2305.09062"
    when = "Few-shot training by neighbourhoods, beside another loss."
    takes_indices = False

    def __init__(self, k: int = 4, reach: int | None = None, shots: int | None = None) -> None:
        super().__init__()
        if k < 1 or (reach is not None and reach < k):
            raise ValueError("k must be at least 1 and reach at least k")
        self.k, self.reach, self.shots = k, reach, check_shots(shots)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        batch, _ = split_episode(batch, self.shots)
        size = len(batch.references)
        others = size - (not batch.has_references)
        k = min(self.k, max(1, size - 2))
        if others < 1 or not len(batch.labels):
            return self.zero_losses()
        items = F.normalize(batch.embeddings, dim=1)
        references = F.normalize(batch.references, dim=1) if batch.has_references else items
        distance = (compute_squared_distances(items, references) + NEAREST).sqrt()
        order = distance.detach()
        if not batch.has_references:
            order = order.clone().fill_diagonal_(torch.inf)
        rows = order.topk(min(self.reach or k + 1, others), largest=False).indices
        positive = batch.reference_labels[rows] == batch.labels[:, None]
        near = distance.gather(1, rows)
        nearest_negative = near.masked_fill(positive, torch.inf).min(1, keepdim=True).values
        relative = (near / (nearest_negative + EPSILON))[:, :k]
        relative = relative / relative.max(1, keepdim=True).values.clamp(min=1)
        near, positive = near[:, :k], positive[:, :k]

        same = 1 - _compute_mean_of_row_means(relative, positive)
        negatives = torch.where(positive, 0, near)
        different = _compute_mean_of_row_means(negatives / (negatives.max() + EPSILON), ~positive)
        if positive.all():
            different = torch.ones_like(different)
        fraction = positive.sum(1).div(k).mean() if self.k + 2 < size else 1.0
        score = ((same + different) / 2 + fraction) / 2
        return build_scalar_terms(-score.clamp(min=EPSILON).log())


def _compute_mean_of_row_means(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the rows that keep an entry of the mean of their kept entries."""
    counts = keep.sum(1)
    means = torch.where(keep, values, 0).sum(1) / (counts + EPSILON)
    return means.sum() / ((counts > 0).sum() + EPSILON)
