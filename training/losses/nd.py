"""Norm-and-direction loss."""

from __future__ import annotations

import torch

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.class_vector_base import compute_class_means
from training.losses.parts.loss_batch import LossBatch


class ND(Loss):
    """Turns items towards the mean direction of their class, and lengthens them up to a teacher's norm.

    Formula: ``mean_i 1 - <s_i, e_y> / max(|s_i|, |t_y|)``, e the unit mean of the class's features without
    gradient, |t| their mean norm. Without a teacher the features are the batch's own and |t| = |s|, so the
    loss is 1 - cos(s, e).

    Shapes: embeddings [n, d], labels [n]; references [m, d] are a teacher's features of the same classes.
    Items of a class that the teacher lacks count 0. A miner's indices weight the items.

    Parameters:
        none. As a term beside another loss a weight of 0.5 to 4 is the authors'.

    Related losses: center pulls to learned centres. Alone it collapses everything to one direction.

    Reference implementation: the teacher's class means come from the whole training set, norms from the
    teacher's feature of the very item.
    """

    name = "nd"
    paper = "Wang et al., Improving Knowledge Distillation via ND, 2023, arXiv 2305.17007"
    when = "Added to another loss to follow a teacher, or for tighter classes. Never alone."

    def __init__(self) -> None:
        super().__init__()

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        embeddings, features = batch.embeddings, batch.references.detach()
        classes, codes = torch.unique(batch.reference_labels, return_inverse=True)
        directions, counts = compute_class_means(features, codes, len(classes))
        norms = features.new_zeros(len(classes)).index_add(0, codes, features.norm(dim=1)) / counts

        position = torch.searchsorted(classes, batch.labels).clamp(max=len(classes) - 1)
        known = classes[position] == batch.labels
        length = embeddings.norm(dim=1)
        longest = torch.maximum(length, norms[position]) if batch.has_references else length
        along = (embeddings * directions[position]).sum(1) / longest.clamp(min=1e-12)
        weights = 1.0 if batch.has_references else batch.compute_item_weights()
        return build_element_terms(torch.where(known, 1 - along, 0) * weights)
