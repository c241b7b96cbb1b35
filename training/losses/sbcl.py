"""Subclass-balancing contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.kmeans import cluster_classes
from training.losses.parts.loss_batch import LossBatch
from training.losses.sup_con import compute_contrast


class SBCL(Loss):
    """Large classes are cut into subclasses of about the size of small ones; both levels contrast.

    Formula: ``SupCon(subclasses; temperature) + gamma * SupCon'(classes; temperature_c)``; SupCon' leaves an
    item's own subclass out of positives and denominator. ``temperature_c = temperature * phi_c / mean phi``,
    phi_c the mean distance of the class's items to their mean over log(size + 10), within the 20 and 80
    percentiles over classes; a class that is one subclass keeps the plain temperature.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.1, gamma: 0.25, cluster_size: 10 (items per subclass), the authors' for CIFAR (0.07,
            0.2 and 20 for ImageNet-LT).
        memory_size: 4096 recent items are clustered. every: 200 steps pass between two clusterings and
            before the first (the authors: 10 epochs); until then it is SupCon.

    Related losses: SupCon when every class is one subclass.

    Reference implementation: the whole training set is embedded and clustered between epochs, and items carry
    their subclass; here the loss clusters what it saw lately, and an item belongs to the nearest centre of
    its class. All of it is state that a checkpoint keeps. Their CIFAR script divides the first term by 0.07 /
    temperature and counts the other view of an image as a positive of both terms; here there are no views.
    """

    name = "sbcl"
    paper = "Hou et al., Subclass-balancing Contrastive Learning, ICCV 2023, arXiv 2306.15925"
    when = "Class sizes that differ by an order of magnitude."

    seen: Tensor
    seen_labels: Tensor
    centers: Tensor
    center_labels: Tensor
    center_temperatures: Tensor
    steps: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        temperature: float = 0.1,
        gamma: float = 0.25,
        cluster_size: int = 10,
        memory_size: int = 4096,
        every: int = 200,
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        self.temperature, self.gamma = temperature, gamma
        self.cluster_size, self.every = cluster_size, every
        most = memory_size // cluster_size + num_classes
        self.register_buffer("seen", torch.zeros(memory_size, embedding_dim))
        self.register_buffer("seen_labels", torch.full((memory_size,), -1))
        self.register_buffer("centers", torch.zeros(most, embedding_dim))
        self.register_buffer("center_labels", torch.full((most,), -1))
        self.register_buffer("center_temperatures", torch.full((most,), temperature))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        if self.training and torch.is_grad_enabled() and not batch.has_references:
            self._remember(F.normalize(batch.embeddings.detach(), dim=1), batch.labels)
        positive, negative = batch.build_pair_masks()
        subclass, temperature = self.assign_subclasses(batch.embeddings, batch.labels)
        ref_subclass, _ = self.assign_subclasses(batch.references, batch.reference_labels)
        similarity = self.distance(batch.embeddings, batch.references)
        siblings = positive & (subclass[:, None] == ref_subclass[None, :])
        others = positive | negative
        fine = compute_contrast(similarity / self.temperature, siblings, others)
        cousins = positive & ~siblings
        coarse = compute_contrast(similarity / temperature[:, None], cousins, others & ~siblings)
        return build_element_terms(fine + self.gamma * coarse)

    def assign_subclasses(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Subclass of each item, int [n], and its temperature, float [n]. -1 - label before clustering."""
        items = F.normalize(embeddings.detach(), dim=1)
        mine = labels[:, None] == self.center_labels[None, :]
        closeness = (items @ self.centers.to(items.dtype).T).masked_fill(~mine, -torch.inf)
        best = closeness.argmax(1)
        known = mine.any(1)
        temperature = torch.where(known, self.center_temperatures[best].to(items.dtype), self.temperature)
        return torch.where(known, best, -1 - labels), temperature

    @torch.no_grad()
    def _remember(self, items: Tensor, labels: Tensor) -> None:
        """Keep the newest items in front; cluster them every so many steps."""
        room = len(self.seen)
        self.seen = torch.cat([items.to(self.seen), self.seen])[:room]
        self.seen_labels = torch.cat([labels, self.seen_labels])[:room]
        self.steps += 1
        if int(self.steps) % self.every == 0:
            kept = self.seen_labels >= 0
            clusters = cluster_classes(
                self.seen[kept], self.seen_labels[kept], self.cluster_size, self.temperature
            )
            k = min(len(clusters.labels), len(self.center_labels))
            self.centers.zero_()[:k] = clusters.centers[:k]
            self.center_labels.fill_(-1)[:k] = clusters.labels[:k]
            self.center_temperatures.fill_(self.temperature)[:k] = clusters.temperatures[:k]
