"""The one place where pytorch-metric-learning, which has no types, meets typed code.

``Loss`` is its ``BaseMetricLossFunction`` with three repairs, so its miners, distances, reducers and wrappers
work with every loss here:

- Losses are computed in float32 or better whatever the autocast: bfloat16 cosines have three digits.
- References with the very labels of the batch (two views of it) are references: the library takes the same
  label tensor for the same items and leaves out the pairs on the diagonal.
- ``PairLoss`` keeps a batch with a single pair; the library returns 0 for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.parts.distances import unit_distance
from training.losses.parts.mixed_pairs import MixedPairs, Roles
from training.losses.parts.pair_masks import pair_masks
from training.runtime.precision import at_least_float32

Indices: TypeAlias = tuple[Tensor, ...]
"""Row numbers: (anchor, positive, negative) or (anchor, positive, anchor, negative), as miners give them."""

LossTerms: TypeAlias = dict[str, dict[str, Any]]
"""What the library's reducers take: for each term its losses, their indices and how they are reduced."""

if TYPE_CHECKING:

    class _LibraryLoss(nn.Module):
        distance: Any
        reducer: Any

        def __init__(self, **settings: Any) -> None: ...

        def forward(
            self,
            embeddings: Tensor,
            labels: Tensor,
            indices_tuple: Indices | None = None,
            ref_emb: Tensor | None = None,
            ref_labels: Tensor | None = None,
        ) -> Tensor: ...

        def compute_loss(
            self,
            embeddings: Tensor,
            labels: Tensor,
            indices_tuple: Indices | None,
            ref_emb: Tensor,
            ref_labels: Tensor,
        ) -> LossTerms: ...

        def zero_losses(self) -> LossTerms: ...

        def _compute_loss(self, first: Tensor, second: Tensor, third: Any) -> LossTerms: ...

    BaseMetricLossFunction: TypeAlias = _LibraryLoss
    CircleLoss: TypeAlias = _LibraryLoss
    ContrastiveLoss: TypeAlias = _LibraryLoss
    GeneralizedLiftedStructureLoss: TypeAlias = _LibraryLoss
    MultiSimilarityLoss: TypeAlias = _LibraryLoss
    SoftTripleLoss: TypeAlias = _LibraryLoss
    TripletMarginLoss: TypeAlias = _LibraryLoss
    library_losses: Any
    library_miners: Any
    CosineSimilarity: Any
else:
    from pytorch_metric_learning import losses as library_losses
    from pytorch_metric_learning import miners as library_miners
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import (
        BaseMetricLossFunction,
        CircleLoss,
        ContrastiveLoss,
        GeneralizedLiftedStructureLoss,
        MultiSimilarityLoss,
        SoftTripleLoss,
        TripletMarginLoss,
    )

__all__ = [
    "BaseMetricLossFunction",
    "CircleLoss",
    "ContrastiveLoss",
    "CosineSimilarity",
    "GeneralizedLiftedStructureLoss",
    "Indices",
    "Loss",
    "LossTerms",
    "MultiSimilarityLoss",
    "PairLoss",
    "SoftTripleLoss",
    "TripletMarginLoss",
    "at_least_float32",
    "library_losses",
    "library_miners",
    "per_element",
    "reduced",
]


class Loss(BaseMetricLossFunction):
    """Base of all losses: ``loss(embeddings [n, d], labels [n]) -> scalar``.

    Attributes:
        paper: where the loss comes from, one line of the catalogue.
        takes_references: whether ``ref_emb`` [m, d] and ``ref_labels`` [m] can stand for the other end of
            the pairs. Losses over class vectors have no such end.
        roles: who is mixed with whom by Metrix; None when the loss has no generalised form.
    """

    paper: ClassVar[str]
    takes_references: ClassVar[bool] = True
    roles: ClassVar[Roles | None] = None

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar; the indices restrict or weight the pairs."""
        with torch.autocast(embeddings.device.type, enabled=False):
            references = None if ref_emb is None else at_least_float32(ref_emb)
            if references is not None and ref_labels is labels:
                ref_labels = labels.clone()
            value: Tensor = super().forward(
                at_least_float32(embeddings), labels, indices_tuple, references, ref_labels
            )
            return value

    def end_step(self) -> None:
        """Called after each step of the optimizer; for what a loss updates itself."""

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """The terms of the generalised form over fractional labels."""
        raise NotImplementedError

    def terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """The clean loss's terms from cosines of anchors and what they are compared with; two bool masks."""
        raise NotImplementedError

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d], what a loss over class vectors compares items with."""
        raise NotImplementedError


class PairLoss(Loss):
    """A loss over the positive and negative pairs of a matrix [n, m] of cosines, or of distances from them.

    Attributes:
        by_distance: take L2 distances of unit vectors; their cosines give them faster than the library's.
    """

    by_distance: ClassVar[bool] = False

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """Terms from the matrix and its two boolean masks."""
        positive, negative = pair_masks(labels, ref_labels, indices_tuple, ref_emb is embeddings)
        items = F.normalize(embeddings, dim=1)
        references = items if ref_emb is embeddings else F.normalize(ref_emb, dim=1)
        return self.terms_of_cosines(items @ references.T, positive, negative)

    def terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """Float [n, m] and two bool [n, m] to the library's loss terms."""
        return self.terms(unit_distance(cosines) if self.by_distance else cosines, positive, negative)

    def terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """Float [n, m] and two bool [n, m] to the library's loss terms."""
        return self._compute_loss(matrix, positive.to(matrix.dtype), negative.to(matrix.dtype))


def per_element(values: Tensor, name: str = "loss") -> LossTerms:
    """One loss per row, left to the reducer."""
    indices = torch.arange(len(values), device=values.device)
    return {name: {"losses": values, "indices": indices, "reduction_type": "element"}}


def reduced(value: Tensor) -> LossTerms:
    """A loss that is one number already."""
    return {"loss": {"losses": value, "indices": None, "reduction_type": "already_reduced"}}
