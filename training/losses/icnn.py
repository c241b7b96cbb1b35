"""Inter- and intra-class nearest-neighbour loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Indices, Loss, LossTerms, reduced
from training.losses.parts.distances import squared_distances
from training.losses.parts.episodes import in_support

NEAREST = 1e-6  # under the root, as in the authors' code
EPSILON = 1e-7


class ICNN(Loss):
    """A score of each item's neighbourhood: near kin, far strangers, many kin; the loss is its -log.

    Formula: over the k nearest neighbours j of each i (without itself), ``n_ij = d_ij / (distance to the
    nearest stranger among the first ``reach`` neighbours)``, divided by ``max(1, max_j n_ij)``;
    ``same = 1 - mean_i mean_{kin j} n_ij``; ``diff = mean_i mean_{strangers j} d_ij / max d``, or 1 without
    strangers; ``score = ((same + diff) / 2 + share of kin) / 2``.

    Shapes: embeddings [n, d], labels [n], references [m, d] hold the neighbours; without references the
    batch does. A miner's indices have no place here: neighbourhoods are the mining.

    Parameters:
        k: 4, the authors'. reach: k + 1 unless given (shots + queries in their full-batch form).
        shots: null; with a number the first ``shots`` items of each class in the batch are the support and
            hold the neighbours of the others, the queries (sampler ``episodic``).

    Neighbours: NCA with a soft neighbourhood. The choice of neighbours and the share of kin have no
    gradient; the share only moves the value.

    In released code: the same values for unit vectors; epsilons of 1e-7 in the quotients as there. Batches
    of fewer than k + 3 items use n - 2 neighbours and a share of 1. Against a support, theirs drops each
    query's nearest neighbour as if it were the query itself; here it counts.
    """

    paper: ClassVar[str] = "Mendez-Ruiz et al., SuSana Distancia is All You Need, 2023, arXiv 2305.09062"

    def __init__(self, k: int = 4, reach: int | None = None, shots: int | None = None) -> None:
        super().__init__()
        if k < 1 or (reach is not None and reach < k):
            raise ValueError("k must be at least 1 and reach at least k")
        if shots is not None and shots < 1:
            raise ValueError(f"shots must be at least 1, found {shots}")
        self.k, self.reach, self.shots = k, reach, shots

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """Minus the logarithm of the score."""
        if ref_emb is embeddings and self.shots:
            support = in_support(labels, self.shots)
            ref_emb, ref_labels = embeddings[support], labels[support]
            embeddings, labels = embeddings[~support], labels[~support]
        alone = ref_emb is embeddings
        m = len(ref_emb) - alone
        k = min(self.k, max(1, len(ref_emb) - 2))
        if m < 1 or not len(labels):
            return self.zero_losses()
        items = F.normalize(embeddings, dim=1)
        squared = squared_distances(items, items if alone else F.normalize(ref_emb, dim=1)) + NEAREST
        distance = squared.sqrt()
        order = distance.detach()
        if alone:
            order = order.clone().fill_diagonal_(torch.inf)
        rows = order.topk(min(self.reach or k + 1, m), largest=False).indices
        kin = ref_labels[rows] == labels[:, None]
        near = distance.gather(1, rows)
        stranger = near.masked_fill(kin, torch.inf).min(1, keepdim=True).values
        relative = (near / (stranger + EPSILON))[:, :k]
        relative = relative / relative.max(1, keepdim=True).values.clamp(min=1)
        near, kin = near[:, :k], kin[:, :k]

        same = 1 - _mean_of_row_means(relative, kin)
        strangers = torch.where(kin, 0, near)
        diff = _mean_of_row_means(strangers / (strangers.max() + EPSILON), ~kin)
        if kin.all():
            diff = torch.ones_like(diff)
        share = kin.sum(1).div(k).mean() if self.k + 2 < len(ref_emb) else 1.0
        score = ((same + diff) / 2 + share) / 2
        return reduced(-score.clamp(min=EPSILON).log())


def _mean_of_row_means(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the rows that keep an entry of the mean of their kept entries."""
    counts = keep.sum(1)
    means = torch.where(keep, values, 0).sum(1) / (counts + EPSILON)
    return means.sum() / ((counts > 0).sum() + EPSILON)
