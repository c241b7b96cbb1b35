"""Norm-and-direction loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Indices, Loss, LossTerms, per_element
from training.losses.parts.pair_masks import item_weights


class ND(Loss):
    """Turns items towards the mean direction of their class, and lengthens them up to a teacher's norm.

    Formula: ``mean_i 1 - <s_i, e_y> / max(|s_i|, |t_y|)``, e the unit mean of the class's features without
    gradient, |t| their mean norm. Without a teacher the features are the batch's own and |t| = |s|, so the
    loss is 1 - cos(s, e).

    Shapes: embeddings [n, d], labels [n]; references [m, d] are a teacher's features of the same classes.
    Items of a class that the teacher lacks count 0. A miner's indices weight the items.

    Parameters:
        none. As a term beside another loss a weight of 0.5 to 4 is the authors'.

    Neighbours: center pulls to learned centres. Alone it collapses everything to one direction.

    In released code: the teacher's class means come from the whole training set, norms from the teacher's
    feature of the very item.
    """

    paper: ClassVar[str] = "Wang et al., Improving Knowledge Distillation via ND, 2023, arXiv 2305.17007"

    def __init__(self) -> None:
        super().__init__()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """One minus the projection on the class direction."""
        alone = ref_emb is embeddings
        features = ref_emb.detach()
        classes, codes = torch.unique(ref_labels, return_inverse=True)
        counts = torch.bincount(codes, minlength=len(classes)).to(features.dtype)
        sums = features.new_zeros(len(classes), features.shape[1])
        directions = F.normalize(sums.index_add(0, codes, F.normalize(features, dim=1)), dim=1)
        norms = features.new_zeros(len(classes)).index_add(0, codes, features.norm(dim=1)) / counts

        place = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
        known = classes[place] == labels
        length = embeddings.norm(dim=1)
        longest = length if alone else torch.maximum(length, norms[place])
        along = (embeddings * directions[place]).sum(1) / longest.clamp(min=1e-12)
        weights = item_weights(len(labels), indices_tuple, along) if alone else 1.0
        return per_element(torch.where(known, 1 - along, 0) * weights)
