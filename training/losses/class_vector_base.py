"""Base of the losses that compare items with one vector per class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import InputError
from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class ClassVectorLoss(Loss):
    """Base of losses over class vectors: subclasses compute one loss per item.

    Labels are codes 0..num_classes-1. A miner's indices weight the items. There is no use for references, so
    they are refused (a cross-batch memory joins its items to the batch instead).
    """

    takes_references: ClassVar[bool] = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """Check the batch, and weight its items as often as a miner selected them.

        Raises:
            ValueError: references were given.
            InputError: labels that are no class codes.
        """
        if batch.has_references:
            raise ValueError(f"{type(self).__name__} compares with class vectors; it takes no ref_emb")
        check_class_codes(batch.labels, self.num_classes)
        weights = None if batch.indices is None else batch.compute_item_weights()
        return self.compute_weighted_terms(batch.embeddings, batch.labels, weights)

    def compute_weighted_terms(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None) -> LossTerms:
        """The terms of float [n, d] and int [n]; ``weights`` float [n], None without a miner."""
        losses = self.compute_item_losses(embeddings, labels)
        return build_element_terms(losses if weights is None else losses * weights)

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Float [n, d] and int [n] to one loss per item, float [n]."""
        raise NotImplementedError


def check_class_codes(labels: Tensor, num_classes: int) -> None:
    """Raises InputError when a label is no class code."""
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise InputError(
            f"labels must be class codes from 0 to {num_classes - 1}, found "
            f"{int(labels.min())} to {int(labels.max())}."
        )


def compute_cosines(embeddings: Tensor, vectors: Tensor) -> Tensor:
    """Cosine of every item to every class vector: [n, d] and [c, d] to [n, c]."""
    return F.normalize(embeddings, dim=1) @ F.normalize(vectors.to(embeddings.dtype), dim=1).T


def compute_class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Unit mean of each class's unit embeddings [c, d] (zero for an absent class) and counts [c]."""
    counts = torch.bincount(labels, minlength=num_classes).to(embeddings.dtype)
    sums = embeddings.new_zeros(num_classes, embeddings.shape[1])
    sums = sums.index_add(0, labels, F.normalize(embeddings, dim=1))
    return F.normalize(sums, dim=1), counts


def start_from_class_means(loss: Loss, embeddings: Tensor, labels: Tensor) -> None:
    """Set a loss's class vectors to the unit mean embedding of each class; absent classes keep theirs.

    Args:
        embeddings: float [n, d] of training items, by the network as it is now; of a loss on their first
            numbers, these are taken.
        labels: int [n].
    """
    vectors = loss.class_vectors
    codes = (
        labels.to(vectors.device) - loss.first
    )  # where classes are split over processes, those of this one
    keep = (codes >= 0) & (codes < len(vectors))
    items = embeddings[:, : vectors.shape[1]].detach().to(vectors)
    means, counts = compute_class_means(items[keep], codes[keep], len(vectors))
    loss.set_class_vectors(counts > 0, means[counts > 0])
