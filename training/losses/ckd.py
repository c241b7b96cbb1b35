"""Contrastive knowledge distillation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class CKD(Loss):
    """Each item's embedding must be nearest to the teacher's of the same item, among the teacher's of others.

    Formula: ``mean_i -log(e^{w cos(P s_i, t_i)} / sum_{j in batch and queue} e^{w cos(P s_i, t_j)})``, s the
    network's outputs, t the teacher's features, w a learned scale. P is a matrix where the teacher's features
    are of another length, else nothing: then the network learns the teacher's own space, and can answer for
    it. Labels are not looked at.

    Shapes: embeddings [n, d], labels [n]; references [n, d_t] are the teacher's features of the items.
    Without a teacher they are the items themselves, without gradient.

    Parameters:
        scale: 20, where w begins; kept as its logarithm. queue: 4096 earlier features of the teacher as
            further negatives (65,536 there).

    Related losses: nt_xent, whose positives are items; nd follows class means; margin_mse compares
    similarities.

    Reference implementation: P always, from 768 to 1,024 numbers; batches of 4,096.
    """

    name = "ckd"
    paper = "Gao et al., DistilCSE: Contrastive Knowledge Distillation, 2021, arXiv 2112.05638"
    when = "To make a small network of a large one: alone, or beside a loss on labels."
    takes_references = False
    takes_indices = False
    follows_teacher = True
    needs_teacher = True
    takes_any_size = True
    takes_unlabelled = True
    lr_factor = 1.0

    queue: Tensor
    count: Tensor

    def __init__(
        self,
        embedding_dim: int,
        teacher_directions: Tensor | None = None,
        scale: float = 20.0,
        queue: int = 4096,
    ) -> None:
        super().__init__()
        if scale <= 0 or queue < 0:
            raise ValueError(f"scale must be above 0 and queue at least 0, found {scale:g} and {queue}")
        size = embedding_dim if teacher_directions is None else teacher_directions.shape[1]
        same = size == embedding_dim
        self.projection: nn.Module = nn.Identity() if same else nn.Linear(embedding_dim, size, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.register_buffer("queue", torch.zeros(queue, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        student = F.normalize(self.projection(batch.embeddings), dim=1)
        teacher = F.normalize(check_teacher(self, batch), dim=1)
        kept = min(int(self.count), len(self.queue))
        known = torch.cat([teacher, self.queue[:kept].to(teacher)]).clone()
        if self.training and torch.is_grad_enabled():
            self._remember(teacher)
        targets = torch.arange(len(student), device=student.device)
        losses = F.cross_entropy(self.log_scale.exp() * student @ known.T, targets, reduction="none")
        return build_element_terms(losses)

    @torch.no_grad()
    def _remember(self, teacher: Tensor) -> None:
        size = len(self.queue)
        newest = teacher[max(0, len(teacher) - size) :]
        if size:
            start = int(self.count) + len(teacher) - len(newest)
            positions = (start + torch.arange(len(newest), device=teacher.device)) % size
            self.queue[positions] = newest.to(self.queue)
        self.count += len(teacher)


def check_teacher(loss: Loss, batch: LossBatch) -> Tensor:
    """The teacher's features of the items, without gradient; the items themselves without a teacher.

    Raises:
        ValueError: other references than one row for each item.
    """
    if len(batch.references) != len(batch.embeddings):
        raise ValueError(
            f"{type(loss).__name__} takes as ref_emb the teacher's feature of each item, found "
            f"{len(batch.references)} for {len(batch.embeddings)} items"
        )
    return batch.references.detach()
