"""Subclass-balancing contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.class_vector_base import check_class_codes
from training.losses.parts.episodes import rank_within_class
from training.losses.parts.kmeans import cluster_classes, compute_subclass_size
from training.losses.parts.loss_batch import LossBatch
from training.losses.sup_con import compute_contrast


class SBCL(Loss):
    """Large classes are cut into subclasses of about the size of small ones; both levels contrast.

    Formula: ``SupCon(subclasses; temperature) + gamma * SupCon'(classes; temperature_c)``; SupCon' leaves an
    item's own subclass out of positives and denominator. A class of n training items has ``n // max(smallest
    class, cluster_size)`` subclasses, at least one. ``temperature_c = temperature * phi_c / mean phi``, phi_c
    the mean distance of the class's items to their mean over log(size + 10), within the 20 and 80 percentiles
    over classes; a class that is one subclass keeps the plain temperature.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1, references [m, d].

    Parameters:
        temperature: 0.1, gamma: 0.25, cluster_size: 10 (items per subclass), the authors' for CIFAR (0.07,
            0.2 and 20 for ImageNet-LT).
        memory_size: 65,536 embeddings are kept and clustered, each class's newest in the proportion of the
            training set: all of it up to that size. every: 200 steps pass between two clusterings and before
            the first (the authors: 10 epochs); until then it is SupCon.

    Related losses: SupCon when every class is one subclass, as with classes of one size.

    Reference implementation: the whole training set is embedded and clustered between epochs, and items carry
    their subclass; here the loss clusters the newest embedding of what it saw of each class (a class of which
    it saw little is cut into fewer parts until then), and an item belongs to the nearest centre of its class.
    All of it is state that a checkpoint keeps. Their CIFAR script divides the first term by 0.07 /
    temperature and counts the other view of an image as a positive of both terms; here there are no views.
    """

    name = "sbcl"
    paper = "Hou et al., Subclass-balancing Contrastive Learning, ICCV 2023, arXiv 2306.15925"
    when = "Class sizes that differ by an order of magnitude."

    starts: Tensor
    room: Tensor
    seen: Tensor
    n_seen: Tensor
    centers: Tensor
    center_labels: Tensor
    center_temperatures: Tensor
    steps: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        class_sizes: Sequence[int],
        temperature: float = 0.1,
        gamma: float = 0.25,
        cluster_size: int = 10,
        memory_size: int = 65_536,
        every: int = 200,
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if min(cluster_size, memory_size, every) < 1:
            raise ValueError("cluster_size, memory_size and every must be at least 1")
        self.temperature, self.gamma, self.every = temperature, gamma, every
        self.num_classes = num_classes
        self.subclass_size = compute_subclass_size(class_sizes, cluster_size)
        self.parts = [max(1, size // self.subclass_size) for size in class_sizes]
        fraction = min(1.0, memory_size / sum(class_sizes))
        room = torch.tensor([max(1, int(size * fraction)) for size in class_sizes])
        self.register_buffer("room", room, persistent=False)
        self.register_buffer("starts", room.cumsum(0) - room, persistent=False)
        self.register_buffer("seen", torch.zeros(int(room.sum()), embedding_dim))
        self.register_buffer("n_seen", torch.zeros(num_classes, dtype=torch.int64))
        most = sum(self.parts)
        self.register_buffer("centers", torch.zeros(most, embedding_dim))
        self.register_buffer("center_labels", torch.full((most,), -1))
        self.register_buffer("center_temperatures", torch.full((most,), temperature))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_class_codes(batch.labels, self.num_classes)
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

    def describe_classes(self, names: Sequence[str]) -> str:
        cut = [code for code, parts in enumerate(self.parts) if parts > 1]
        cut.sort(key=lambda code: -self.parts[code])
        if not cut:
            return (
                f"Warning: sbcl cuts none of {len(names)} classes, as none is twice as large as the "
                f"{self.subclass_size} items of a subclass: it is sup_con here."
            )
        largest = ", ".join(f"{names[code]} into {self.parts[code]}" for code in cut[:5])
        return (
            f"sbcl cuts {len(cut)} of {len(names)} classes into subclasses of about {self.subclass_size} "
            f"items, first after {self.every} steps: {largest}{', ...' if cut[5:] else ''}."
        )

    def collect_figures(self) -> dict[str, float]:
        """Classes that are cut as the loss stands, and all subclasses; 0 before the first clustering."""
        labels = self.center_labels[self.center_labels >= 0]
        per_class = torch.bincount(labels, minlength=1)
        return {"sbcl_cut_classes": float((per_class > 1).sum()), "sbcl_subclasses": float(len(labels))}

    @torch.no_grad()
    def _remember(self, items: Tensor, labels: Tensor) -> None:
        """Keep each class's newest items; cluster them every so many steps."""
        counts = torch.bincount(labels, minlength=self.num_classes)
        rank, room = rank_within_class(labels), self.room[labels]
        newest = rank >= counts[labels] - room  # of a batch that holds more of a class than there is room for
        rows = self.starts[labels] + (self.n_seen[labels] + rank) % room
        self.seen[rows[newest]] = items[newest].to(self.seen)
        self.n_seen += counts
        self.steps += 1
        if int(self.steps) % self.every == 0:
            self._cluster()

    def _cluster(self) -> None:
        codes = torch.arange(self.num_classes, device=self.seen.device).repeat_interleave(self.room)
        kept = torch.arange(len(self.seen), device=codes.device) - self.starts[codes] < self.n_seen[codes]
        clusters = cluster_classes(self.seen[kept], codes[kept], self.subclass_size, self.temperature)
        k = len(clusters.labels)
        self.centers.zero_()[:k] = clusters.centers
        self.center_labels.fill_(-1)[:k] = clusters.labels
        self.center_temperatures.fill_(self.temperature)[:k] = clusters.temperatures
