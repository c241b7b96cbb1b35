"""Norm-and-direction loss."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.class_vector_base import compute_class_means
from training.losses.parts.loss_batch import LossBatch


class ND(Loss):
    """Turns items towards the mean direction of their class, and lengthens them up to a teacher's norm.

    Formula: ``mean_i 1 - <s_i, e_y> / max(|s_i|, |t_i|)``, s the student's output before it is brought to
    unit length, t the teacher's feature of the same item, e_y the direction of the mean of the teacher's
    features of the class over the training set. Without a teacher e is the unit mean of the batch's own class
    without gradient and |t| = |s|, so the loss is 1 - cos(s, e).

    Shapes: embeddings [n, d], labels [n]; references [n, d] are the teacher's features of the items. Without
    class directions, references [m, d] are a teacher's features of the same classes, of which directions and
    mean norms are taken; items of a class that they lack count 0. A miner's indices weight the items.

    Parameters:
        none. The ``teacher`` section of the configuration names the teacher; its features are as long as the
            embedding. As a term beside another loss a weight of 0.5 to 4 is the authors'.

    Related losses: center pulls to learned centres. Alone and without a teacher it collapses everything to
    one direction.

    Reference implementation: features of student and teacher are those before the classifier; here the
    student's are the embedding before it is normalised. A bundle's encoder gives unit vectors: then only
    directions are followed beyond length 1.
    """

    name = "nd"
    paper = "Wang et al., Improving Knowledge Distillation via ND, 2023, arXiv 2305.17007"
    when = "Added to another loss to follow a teacher, or for tighter classes. Never alone."
    follows_teacher = True

    directions: Tensor | None

    def __init__(self, teacher_directions: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("directions", teacher_directions, persistent=False)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        embeddings, labels = batch.embeddings, batch.labels
        length = embeddings.norm(dim=1)
        if self.directions is not None:
            toward, longest = self.directions[labels], torch.maximum(length, batch.references.norm(dim=1))
            along = (embeddings * toward.to(embeddings.dtype)).sum(1) / longest.clamp(min=1e-12)
            return build_element_terms((1 - along) * batch.compute_item_weights())
        features = batch.references.detach()
        classes, codes = torch.unique(batch.reference_labels, return_inverse=True)
        directions, counts = compute_class_means(features, codes, len(classes))
        norms = features.new_zeros(len(classes)).index_add(0, codes, features.norm(dim=1)) / counts

        position = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
        known = classes[position] == labels
        longest = torch.maximum(length, norms[position]) if batch.has_references else length
        along = (embeddings * directions[position]).sum(1) / longest.clamp(min=1e-12)
        weights = 1.0 if batch.has_references else batch.compute_item_weights()
        return build_element_terms(torch.where(known, 1 - along, 0) * weights)
