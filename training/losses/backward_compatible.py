"""Backward-compatible training: the new embeddings are classified by the old model's frozen centres."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.ckd import check_teacher
from training.losses.class_vector_base import compute_class_means, compute_cosines
from training.losses.parts.loss_batch import LossBatch


class BackwardCompatible(Loss):
    """Classification against the old model's class means, which never move.

    Formula: ``mean_i -log softmax_c(scale * cos(x_i, o_c))_{y_i}``, o_c the direction of the mean of the old
    model's embeddings of class c over the training set, of new classes as well as of old ones.

    Shapes: embeddings [n, d], labels [n]; references [n, d] are the old model's embeddings of the items.
    Without class directions o is the unit mean of the references of each class in the batch.

    Parameters:
        scale: 20.

    Related losses: center with ``centers_from`` pulls to old centres alone, without pushing from others;
    d_simplex has centres that no model had to learn; higher_order_compatibility compares item by item.

    Reference implementation: the old model's own classifier, beside the new model's cross-entropy; classes
    that it did not know get the mean of their old features, as here.
    """

    name = "backward_compatible"
    paper = "Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020, arXiv 2003.11942"
    when = "With teacher: the old bundle, beside another loss, so that a new model can query its gallery."
    takes_references = False
    takes_indices = False
    follows_teacher = True
    needs_teacher = True

    directions: Tensor | None

    def __init__(self, teacher_directions: Tensor | None = None, scale: float = 20.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be above 0, found {scale:g}")
        self.scale = scale
        self.register_buffer("directions", teacher_directions, persistent=False)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        old, targets, directions = check_teacher(self, batch), batch.labels, self.directions
        if directions is None:
            classes, targets = torch.unique(batch.labels, return_inverse=True)
            directions, _ = compute_class_means(old, targets, len(classes))
        logits = self.scale * compute_cosines(batch.embeddings, directions)
        return build_element_terms(F.cross_entropy(logits, targets, reduction="none"))
