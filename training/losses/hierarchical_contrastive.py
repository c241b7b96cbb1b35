"""Hierarchical contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_scalar_terms
from training.losses.class_vector_base import check_class_codes
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp, compute_masked_mean


class HierarchicalContrastive(Loss):
    """Contrastive loss for labels that form a tree: pairs closer in the tree must be more similar.

    Formula: with ``s = (cosine + 1) / 2``, for each two tree distances i < j, close pairs C at i and far
    pairs F at j: ``mean_{c in C} -log(e^{a s_c} / (e^{a s_c} + sum_F e^{a s_f}))
    + mean_{f in F} -log(e^{-a s_f} / (e^{-a s_f} + sum_C e^{-a s_c}))``; mean over the pairs of distances
    that the batch has.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1, references [m, d].

    Parameters:
        a: 32, ours: about the sharpness of NT-Xent. The tree is that of the data: ``data.hierarchy: path``
            for nested folders, or a list of columns, the broadest first.

    Related losses: with a flat tree it is a contrastive loss over all pairs of the batch at once.

    Reference implementation: one stored file of unknown origin alone was found for the paper's loss. It
    minimises +log with the exponents' signs reversed and a = 2, which pulls and pushes all pairs equally
    (the far ones most that are far already): two opposite points satisfy it, and training ends there (see the
    method's page). Its one mean over close and far pairs together hardly counts the close ones.
    """

    name = "hierarchical_contrastive"
    paper = "Cai et al., Hierarchical Pretraining for Biomedical Term Embeddings, 2023, arXiv 2307.00266"
    when = "Labels that form a tree."
    positive = Loss.positive | {"a"}
    needs_hierarchy = True

    paths: Tensor

    def __init__(self, num_classes: int, class_paths: Sequence[Sequence[int]], a: float = 32.0) -> None:
        super().__init__(distance=CosineSimilarity())
        self.a, self.num_classes = a, num_classes
        if len(class_paths) != num_classes or len({len(path) for path in class_paths}) > 1:
            raise ValueError(f"class_paths must be {num_classes} lists of one length, one for each class")
        paths = [[*path, code] for code, path in enumerate(class_paths)]
        self.register_buffer("paths", torch.tensor(paths), persistent=False)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        check_class_codes(batch.labels, self.num_classes)
        check_class_codes(batch.reference_labels, self.num_classes)
        positive, negative = batch.build_pair_masks()
        similarity = (self.distance(batch.embeddings, batch.references) + 1) / 2
        # the path is shared down to some level: what is below it is the distance in the tree
        equal = self.paths[batch.labels][:, None] == self.paths[batch.reference_labels][None]
        shared = equal.cumprod(2).sum(2)
        distance = self.paths.shape[1] - shared
        levels = [
            mask
            for level in range(self.paths.shape[1] + 1)
            if (mask := (positive | negative) & (distance == level)).any()
        ]
        terms = [
            _compute_separation(similarity * self.a, close, far)
            for i, close in enumerate(levels)
            for far in levels[i + 1 :]
        ]
        return build_scalar_terms(torch.stack(terms).mean()) if terms else self.zero_losses()


def _compute_separation(similarity: Tensor, close: Tensor, far: Tensor) -> Tensor:
    """Both directions, for similarities already times a."""
    flat, close, far = similarity.flatten(), close.flatten(), far.flatten()
    all_far = compute_masked_logsumexp(flat, far, dim=0)
    all_close = compute_masked_logsumexp(-flat, close, dim=0)
    pull = torch.logaddexp(flat, all_far) - flat
    push = torch.logaddexp(-flat, all_close) + flat
    return compute_masked_mean(pull, close) + compute_masked_mean(push, far)
