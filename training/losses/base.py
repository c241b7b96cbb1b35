"""Base classes of the losses, where typed code meets pytorch-metric-learning, which has no types.

``Loss`` is its ``BaseMetricLossFunction`` with three repairs, so its miners, distances, reducers and wrappers
work with every loss here:

- Losses are computed in float32 or better whatever the autocast: bfloat16 cosines have three digits.
- References with the very labels of the batch (two views of it) are references: the library takes the same
  label tensor for the same items and leaves out the pairs on the diagonal.
- ``PairLoss`` keeps a batch with a single pair; the library returns 0 for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from pytorch_metric_learning.distances import CosineSimilarity as CosineSimilarity
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.class_corners import ClassCorners
from api_schemas.operating_point import Probability
from training.losses.parts.loss_batch import Indices, LossBatch, MixedPairs, Roles
from training.losses.parts.pair_masks import compute_unit_distances
from training.runtime.device import widen_half_precision

LossTerms: TypeAlias = dict[str, dict[str, Any]]
"""Input of the library's reducers: for each term its losses, their indices and how they are reduced."""

if TYPE_CHECKING:

    class BaseMetricLossFunction(nn.Module):
        distance: Any
        reducer: Any
        compute_loss: Callable[..., LossTerms]
        zero_losses: Callable[[], LossTerms]
        _compute_loss: Callable[..., LossTerms]

        def __init__(self, **settings: Any) -> None: ...

else:
    from pytorch_metric_learning.losses import BaseMetricLossFunction


class Loss(BaseMetricLossFunction):
    """Base of all losses: ``loss(embeddings [n, d], labels [n]) -> scalar``.

    Attributes:
        name: in the configuration.
        paper: where the loss comes from, one line.
        when: when to use it, one or two sentences.
        takes_references: whether ``ref_emb`` [m, d] and ``ref_labels`` [m] can stand for the other end of
            the pairs. Losses over class vectors have no such end.
        takes_indices: whether what a miner selects changes anything.
        roles: who is mixed with whom by Metrix; None when the loss has no generalised form.
        needs_hierarchy: whether it learns nothing of its own where classes have no groups.
        follows_teacher: whether, with a teacher, it takes the network's raw output as ``embeddings`` and the
            teacher's features of the same items as ``ref_emb``.
        needs_teacher: whether it is refused where the configuration has no teacher.
        takes_any_size: whether the teacher's features may be of another length than the embedding.
        takes_unlabelled: whether it learns from items of the teacher's own data, whose label is -1.
        positive: parameters that must be above 0, where the loss has them: at 0 it has no slope or no value,
            below it pulls apart what it should pull together.
        lr_factor: on the learning rate of its own parameters, unless the configuration says another.
        adam_eps: of AdamW and its kind for them; with a large one steps follow the size of the gradient.
        match_probability: from a cosine, at the fraction of positives among the pairs it was learned from.
        class_corners: of fixed class vectors, which vector belongs to which class; None without.
        vectors: name of the tensor [num_classes, d] that items are compared with; None where there is none.
        first: where class vectors are split over processes, the class of this process's first row.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    when: ClassVar[str]
    takes_references: ClassVar[bool] = True
    takes_indices: ClassVar[bool] = True
    roles: ClassVar[Roles | None] = None
    vectors: ClassVar[str | None] = None
    needs_hierarchy: ClassVar[bool] = False
    follows_teacher: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    takes_any_size: ClassVar[bool] = False
    takes_unlabelled: ClassVar[bool] = False
    positive: ClassVar[frozenset[str]] = frozenset({"temperature", "scale", "softmax_scale", "alpha"})
    lr_factor: float = 10.0
    adam_eps: float = 1e-8
    match_probability: Probability | None = None
    class_corners: ClassCorners | None = None
    first: int = 0

    @property
    def class_shard(self) -> Mapping[str, Tensor]:
        """Tensors with a row for each class of this process's range, where classes are split; a checkpoint
        keeps each process's in a file of its own."""
        return {}

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar; the indices restrict or weight the pairs."""
        if not self.takes_indices:
            indices_tuple = None
        with torch.autocast(embeddings.device.type, enabled=False):
            references = None if ref_emb is None else widen_half_precision(ref_emb)
            if references is not None and ref_labels is labels:
                ref_labels = labels.clone()
            value: Tensor = super().forward(
                widen_half_precision(embeddings), labels, indices_tuple, references, ref_labels
            )
            return value

    def compute_loss(self, *tensors: Any) -> LossTerms:
        """The library's hook; its arguments are those of ``LossBatch``, in this order."""
        return self.compute_terms(LossBatch(*tensors))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """The terms that the reducer makes a scalar; by default those of the library's class."""
        return super().compute_loss(
            batch.embeddings, batch.labels, batch.indices, batch.references, batch.reference_labels
        )

    def end_step(self, lr_factor: float = 1.0) -> None:
        """Called after each step of the optimizer; for losses that update their own vectors.

        Args:
            lr_factor: of the schedule at this step.
        """

    def describe_classes(self, names: Sequence[str]) -> str | None:
        """A sentence on what the loss makes of the training classes; None where all are alike to it."""
        return None

    def collect_figures(self) -> dict[str, float]:
        """Figures of the loss's own state, for the log of the epochs."""
        return {}

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """The terms of the generalised form over fractional labels."""
        raise NotImplementedError

    def compute_terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """The clean loss's terms from cosines of anchors and what they are compared with; two bool masks."""
        raise NotImplementedError

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d], not always of unit length."""
        vectors: Tensor = getattr(self, str(self.vectors))
        return vectors

    def read_class_vectors(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Class vectors float [c, d] out of the state of a loss of this kind; None where it has none."""
        return tensors.get(str(self.vectors))

    @torch.no_grad()
    def set_class_vectors(self, rows: Tensor, vectors: Tensor) -> None:
        """Replace the vectors of some classes: bool [num_classes] or int [k], and float [k, d]."""
        self.class_vectors[rows] = vectors.to(self.class_vectors)


class PairLoss(Loss):
    """A loss over the positive and negative pairs of a matrix [n, m] of cosines, or of distances from them.

    Attributes:
        by_distance: take L2 distances of unit vectors; their cosines give them faster than the library's.
    """

    by_distance: ClassVar[bool] = False

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """Terms from the matrix and its two boolean masks."""
        positive, negative = batch.build_pair_masks()
        items = F.normalize(batch.embeddings, dim=1)
        references = F.normalize(batch.references, dim=1) if batch.has_references else items
        return self.compute_terms_of_cosines(items @ references.T, positive, negative)

    def compute_terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """Float [n, m] and two bool [n, m] to the library's loss terms."""
        return self.compute_pair_terms(
            compute_unit_distances(cosines) if self.by_distance else cosines, positive, negative
        )

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """Float [n, m] and two bool [n, m] to the library's loss terms."""
        return self._compute_loss(matrix, positive.to(matrix.dtype), negative.to(matrix.dtype))


def build_element_terms(values: Tensor, items: Tensor | None = None) -> LossTerms:
    """The terms of one loss each, float [k], left to the reducer.

    Args:
        items: whose each is: int [k], or bool [n] with k of them true; None where k is n, in their order.
    """
    if items is None:
        items = torch.arange(len(values), device=values.device)
    elif items.dtype == torch.bool:
        items = torch.where(items)[0]
    return {"loss": {"losses": values, "indices": items, "reduction_type": "element"}}


def build_scalar_terms(value: Tensor) -> LossTerms:
    """The terms of a loss that is one number already."""
    return {"loss": {"losses": value, "indices": None, "reduction_type": "already_reduced"}}
