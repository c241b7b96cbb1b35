"""What losses that compare items with one vector per class share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import InputError
from training.losses.base import Indices, Loss, LossTerms, per_element
from training.losses.parts.pair_masks import item_weights


class ClassVectorLoss(Loss):
    """Base of losses over class vectors: subclasses give one loss per item.

    Labels are codes 0..num_classes-1. A miner's indices weight the items. References have no place here;
    given ones are refused (a cross-batch memory joins them to the batch instead, see ``training.memory``).
    """

    takes_references: ClassVar[bool] = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """The weighted losses of the items, and the regulariser where there is one."""
        self.check(embeddings, labels, ref_emb)
        losses = self.per_item(embeddings, labels)
        if indices_tuple is not None:
            losses = losses * item_weights(len(labels), indices_tuple, losses)
        return per_element(losses)

    def check(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor) -> None:
        """Raises ValueError for references and InputError for labels that are no class codes."""
        if ref_emb is not embeddings:
            raise ValueError(f"{type(self).__name__} compares with class vectors; it takes no ref_emb")
        check_codes(labels, self.num_classes)

    def per_item(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Float [n, d] and int [n] to one loss per item, float [n]."""
        raise NotImplementedError


def check_codes(labels: Tensor, num_classes: int) -> None:
    """Raises InputError when a label is no class code."""
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise InputError(
            f"labels must be class codes from 0 to {num_classes - 1}, found "
            f"{int(labels.min())} to {int(labels.max())}."
        )


def cosines(embeddings: Tensor, vectors: Tensor) -> Tensor:
    """Cosine of every item to every class vector: [n, d] and [c, d] to [n, c]."""
    return F.normalize(embeddings, dim=1) @ F.normalize(vectors.to(embeddings.dtype), dim=1).T


def class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Unit mean of each class's unit embeddings [c, d] (zero for an absent class) and counts [c]."""
    counts = torch.bincount(labels, minlength=num_classes).to(embeddings.dtype)
    sums = embeddings.new_zeros(num_classes, embeddings.shape[1])
    sums = sums.index_add(0, labels, F.normalize(embeddings, dim=1))
    return F.normalize(sums, dim=1), counts


def start_from_class_means(loss: Loss, embeddings: Tensor, labels: Tensor) -> None:
    """Set a loss's class vectors to the unit mean embedding of each class; absent classes keep theirs.

    Args:
        embeddings: float [n, d] of training items, by the network as it is now.
        labels: int [n].
    """
    vectors = loss.class_vectors
    means, counts = class_means(embeddings.detach().to(vectors), labels.to(vectors.device), len(vectors))
    with torch.no_grad():
        vectors[counts > 0] = means[counts > 0]
