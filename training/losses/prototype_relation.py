"""Prototype-sample relation distillation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_scalar_terms
from training.losses.ckd import check_teacher
from training.losses.class_vector_base import check_class_codes, compute_class_means, compute_cosines
from training.losses.parts.loss_batch import LossBatch


class PrototypeRelation(Loss):
    """Items must be related to the student's prototypes of the classes as they are to the teacher's.

    Formula: ``KL(R_t || R_s) + pull * mean_i (1 - cos(sg x_i, p_{y_i}))`` with ``R = softmax(cos(item,
    prototype) / temperature)``, over the items of the batch for each prototype (``over: items``) or over the
    prototypes for each item (``over: prototypes``); KL is the mean over the rows of the softmax. The
    student's prototypes p are learned, the teacher's are its class means over the training set. Only
    similarities are compared, so the teacher's features may have any length.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1, or -1 for an item without a label, which has a
    relation and no pull; references [n, d_t] are the teacher's features of the items. Without class
    directions the teacher's prototypes are the unit means of the references of each class in the batch.

    Parameters:
        over: items, as the paper's text has it. temperature: 0.1 for cosines. pull: 2.

    Related losses: margin_mse compares items with items; nd follows the teacher's class means themselves.

    Reference implementation: softmax over the prototypes, of raw features with unit prototypes at temperature
    1, weight 4 beside a supervised contrastive loss with weight 1.
    """

    name = "prototype_relation"
    paper = "Asadi et al., Prototype-Sample Relation Distillation, ICML 2023, arXiv 2303.14771"
    when = "Beside a loss on labels, to keep what an earlier model knew of classes while others are learned."
    takes_references = False
    takes_indices = False
    follows_teacher = True
    needs_teacher = True
    takes_any_size = True
    takes_unlabelled = True
    vectors = "prototypes"

    directions: Tensor | None

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        teacher_directions: Tensor | None = None,
        over: Literal["items", "prototypes"] = "items",
        temperature: float = 0.1,
        pull: float = 2.0,
    ) -> None:
        super().__init__()
        if temperature <= 0 or pull < 0:
            raise ValueError(
                f"temperature must be above 0 and pull not below, found {temperature:g} and {pull:g}"
            )
        self.num_classes, self.over, self.temperature, self.pull = num_classes, over, temperature, pull
        self.prototypes = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))
        self.register_buffer("directions", teacher_directions, persistent=False)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        items, labels = batch.embeddings, batch.labels
        has_label = labels >= 0
        check_class_codes(labels[has_label], self.num_classes)
        features, directions = check_teacher(self, batch), self.directions
        prototypes: Tensor = self.prototypes
        if directions is None:
            classes, codes = torch.unique(labels[has_label], return_inverse=True)
            directions, _ = compute_class_means(features[has_label], codes, len(classes))
            prototypes = prototypes[classes]
        axis = 0 if self.over == "items" else 1
        given = F.log_softmax(compute_cosines(features, directions) / self.temperature, dim=axis)
        learned = F.log_softmax(compute_cosines(items, prototypes) / self.temperature, dim=axis)
        relation = (given.exp() * (given - learned)).sum(axis).mean()
        own = F.normalize(self.prototypes.to(items.dtype), dim=1)[labels[has_label]]
        apart = 1 - (F.normalize(items[has_label].detach(), dim=1) * own).sum(1)
        return build_scalar_terms(relation + self.pull * apart.sum() / max(1, len(apart)))
