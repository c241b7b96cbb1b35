"""InterCLR: items of one cluster as further positives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import LossTerms, build_scalar_terms
from training.losses.ge2e import check_no_references
from training.losses.item_loss import ItemLoss, average_by_row
from training.losses.parts.kmeans import fit_k_means
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp

HARD, DRAWN = 0.1, 0.125  # of the memory: the nearest tenth of other clusters, of those an eighth


class InterCLR(ItemLoss):
    """Two views of an item are positives, and so are two items of one cluster, more loosely.

    Formula: ``w L(views) + (1 - w) L(cluster)``. L(views) is the mean over positive pairs of ``-log(e^{s_ap /
    t} / (e^{s_ap / t} + sum_n e^{s_an / t}))``; L(cluster) the mean over items of the same with a random item
    of the item's cluster as the positive, at ``(s + 0.5) / t``, and negatives drawn from the nearest items of
    other clusters. Clusters are k-means of every item's newest embedding.

    Shapes: embeddings [n, d], labels [n]. No references.

    Parameters:
        temperature: 0.2, weight: 0.75, margin: -0.5 (negative: looser). clusters: 100, about a twentieth of
            the items or fewer; 10,000 there for a million pictures. start: 200 steps before the first
            clustering, until which L(views) is all; every: 10 steps between two updates of the centres.

    Related losses: sbcl cuts classes into clusters, here items are joined to them.

    Reference implementation: MoCo's two encoders and queue for L(views); here the batch. Clusters that become
    smaller than 20 are merged there, here one that is empty takes over the item that is farthest from the
    centre of the largest. All of it is state that a checkpoint keeps.
    """

    name = "interclr"
    paper = "Xie et al., Delving into Inter-Image Invariance, IJCV 2022, arXiv 2008.11702"
    when = "Two views without labels, where items of one class resemble each other from the start."
    takes_references = False

    memory: Tensor
    seen: Tensor
    assigned: Tensor
    centers: Tensor
    steps: Tensor

    def __init__(
        self,
        class_sizes: Sequence[int],
        embedding_dim: int,
        temperature: float = 0.2,
        weight: float = 0.75,
        margin: float = -0.5,
        clusters: int = 100,
        start: int = 200,
        every: int = 10,
    ) -> None:
        super().__init__(class_sizes)
        if temperature <= 0 or not 0 <= weight <= 1 or min(clusters - 1, start, every) < 1:
            raise ValueError(
                "temperature must be above 0, weight 0 to 1, clusters at least 2, start and every at least 1"
            )
        self.temperature, self.weight, self.margin = temperature, weight, margin
        self.start, self.every = start, every
        self.register_buffer("memory", torch.zeros(self.num_items, embedding_dim))
        self.register_buffer("seen", torch.zeros(self.num_items, dtype=torch.bool))
        self.register_buffer("assigned", torch.full((self.num_items,), -1))
        self.register_buffer("centers", torch.zeros(min(clusters, self.num_items), embedding_dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_no_references(self, batch)
        items, rows = F.normalize(batch.embeddings, dim=1), self.get_rows(batch)
        positive, negative = batch.build_pair_masks()
        loss = 0 * items.sum()
        if positive.any() and negative.any():
            logits = items @ items.T / self.temperature
            rivals = compute_masked_logsumexp(logits, negative, dim=1)[:, None]
            loss = loss + self.weight * (torch.logaddexp(logits, rivals) - logits)[positive].mean()
        if int(self.steps) >= self.start:
            loss = loss + (1 - self.weight) * self._compare_with_clusters(items, rows)
        if self.learns_from(batch):
            self._remember(items.detach(), rows)
        return build_scalar_terms(loss)

    def _compare_with_clusters(self, items: Tensor, rows: Tensor) -> Tensor:
        known = self.memory.to(items.dtype, copy=True)  # it changes before the backward pass
        same = self.assigned[rows][:, None] == self.assigned[None, :]
        others = self.seen[None, :] & ~same
        same = same & self.seen[None, :]
        same[torch.arange(len(rows), device=rows.device), rows] = False
        kept = same.any(1) & others.any(1)
        if not kept.any():
            return 0 * items.sum()
        cosines, same, others = items[kept] @ known.T, same[kept], others[kept]
        chance = torch.rand(cosines.shape, device=cosines.device)
        drawn = chance.masked_fill(~same, -1).argmax(1)
        hard = max(1, int(HARD * len(known)))
        near = cosines.detach().masked_fill(~others, -torch.inf).topk(hard, dim=1).indices
        picked = torch.randperm(hard, device=near.device)[: max(1, int(DRAWN * hard))]
        near = near[:, picked]
        rivals = compute_masked_logsumexp(
            cosines.gather(1, near) / self.temperature, others.gather(1, near), dim=1
        )
        target = (cosines.gather(1, drawn[:, None])[:, 0] - self.margin) / self.temperature
        return (torch.logaddexp(target, rivals) - target).mean()

    @torch.no_grad()
    def _remember(self, items: Tensor, rows: Tensor) -> None:
        """Keep each item's newest embedding; move it to its cluster, and the clusters to their items."""
        distinct, mean = average_by_row(items, rows)
        self.memory[distinct] = F.normalize(mean, dim=1).to(self.memory)
        self.seen[distinct] = True
        self.steps += 1
        step = int(self.steps)
        if step == self.start:
            kept = self.memory[self.seen]
            self.centers.copy_(_pad(fit_k_means(kept, min(len(self.centers), len(kept))), len(self.centers)))
            self.assigned[self.seen] = (kept @ self.centers.T).argmax(1)
        elif step > self.start:
            self.assigned[distinct] = (self.memory[distinct] @ self.centers.T).argmax(1)
            if step % self.every == 0:
                self._move_centers()

    def _move_centers(self) -> None:
        members, sizes = self.assigned[self.seen], self._count_members()
        sums = torch.zeros_like(self.centers).index_add(0, members, self.memory[self.seen])
        self.centers.copy_(torch.where(sizes[:, None] > 0, F.normalize(sums, dim=1), self.centers))
        for empty in torch.where(sizes == 0)[0].tolist():
            largest = int(self._count_members().argmax())
            rows = torch.where(self.assigned == largest)[0]
            farthest = rows[int((self.memory[rows] @ self.centers[largest]).argmin())]
            self.centers[empty], self.assigned[farthest] = self.memory[farthest], empty

    def _count_members(self) -> Tensor:
        return torch.bincount(self.assigned[self.seen].clamp(min=0), minlength=len(self.centers))


def _pad(centers: Tensor, count: int) -> Tensor:
    """So many centres, the last ones zeros where there are fewer."""
    return F.pad(centers, (0, 0, 0, count - len(centers)))
