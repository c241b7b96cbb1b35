"""Hierarchical contrastive loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Indices, Loss, LossTerms, reduced
from training.losses.class_vector_base import check_codes
from training.losses.parts.pair_masks import masked_logsumexp, masked_mean, pair_masks


class HierarchicalContrastive(Loss):
    """For labels that form a tree: pairs that are closer in the tree must be more alike.

    Formula: with ``s = (cosine + 1) / 2``, for each two tree distances i < j, close pairs C at i and far
    pairs F at j: ``mean_{c in C} -log(e^{a s_c} / (e^{a s_c} + sum_F e^{a s_f}))
    + mean_{f in F} -log(e^{-a s_f} / (e^{-a s_f} + sum_C e^{-a s_c}))``; mean over the pairs of distances
    that the batch has.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1, references [m, d].

    Parameters:
        a: 32, ours: about the sharpness of NT-Xent. ancestors: for each class its groups from the root down,
            e.g. [[0], [0], [1]] for three classes in two groups; a flat tree (same or other class) unless
            given.

    Neighbours: with a flat tree it is a contrastive loss over all pairs of the batch at once.

    In released code: one stored file of unknown origin alone was found for the paper's loss. It minimises
    +log with the exponents' signs turned round and a = 2, which pulls and pushes all pairs alike (the far
    ones most that are far already): two opposite points satisfy it, and training ends there (see the
    method's page). Its one mean over close and far pairs together hardly counts the close ones.
    """

    paper: ClassVar[str] = (
        "Cai et al., Hierarchical Pretraining for Biomedical Term Embeddings, 2023, arXiv 2307.00266"
    )

    paths: Tensor

    def __init__(self, num_classes: int, a: float = 32.0, ancestors: list[list[int]] | None = None) -> None:
        super().__init__(distance=CosineSimilarity())
        self.a, self.num_classes = a, num_classes
        groups = [[] for _ in range(num_classes)] if ancestors is None else ancestors
        if len(groups) != num_classes or len({len(path) for path in groups}) > 1:
            raise ValueError(f"ancestors must be {num_classes} lists of one length, one for each class")
        paths = [[*path, code] for code, path in enumerate(groups)]
        self.register_buffer("paths", torch.tensor(paths), persistent=False)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """Every two levels that occur."""
        check_codes(labels, self.num_classes)
        check_codes(ref_labels, self.num_classes)
        positive, negative = pair_masks(labels, ref_labels, indices_tuple, ref_emb is embeddings)
        similarity = (self.distance(embeddings, ref_emb) + 1) / 2
        # the path is shared down to some level: what is below it is the distance in the tree
        shared = (self.paths[labels][:, None] == self.paths[ref_labels][None]).cumprod(2).sum(2)
        distance = self.paths.shape[1] - shared
        levels = [
            mask
            for level in range(self.paths.shape[1] + 1)
            if (mask := (positive | negative) & (distance == level)).any()
        ]
        terms = [
            _apart(similarity * self.a, close, far)
            for i, close in enumerate(levels)
            for far in levels[i + 1 :]
        ]
        return reduced(torch.stack(terms).mean()) if terms else self.zero_losses()


def _apart(similarity: Tensor, close: Tensor, far: Tensor) -> Tensor:
    """Both directions, for similarities already times a."""
    flat, close, far = similarity.flatten(), close.flatten(), far.flatten()
    all_far = masked_logsumexp(flat, far, dim=0)
    all_close = masked_logsumexp(-flat, close, dim=0)
    pull = torch.logaddexp(flat, all_far) - flat
    push = torch.logaddexp(-flat, all_close) + flat
    return masked_mean(pull, close) + masked_mean(push, far)
