"""Z-loss, at a cost that does not grow with the number of classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss

WORST_CONDITION = 1e4  # of the factor that all class vectors share; beyond it float32 rows lose digits
CHECK_EVERY = 100  # steps
ROWS_AT_ONCE = 65_536


class ZLoss(ClassVectorLoss):
    """The target's output must stand out from all outputs, in standard deviations.

    Formula: ``mean_i softplus(a (b - z_iy)) / a``, ``z_i = (o_i - mean(o_i)) / std(o_i)``, ``o = W x``.
    Shifting or scaling the outputs changes nothing.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references. Time of a step O(d^3 + n d^2),
    whatever the number of classes; memory one float32 [num_classes, d].

    Parameters:
        a: 1, b: 0 (what the reference code does). With C classes z is at most sqrt(C - 1), so b above that
            is never reached.
        lr: 3, of the class vectors' own plain SGD, on the schedule of the run. No momentum: it would move
            every vector by an amount of its own.

    Related losses: softmax cross-entropy, whose scale matters and which needs every output; this one needs
    the mean and the variance of the outputs, ``x . w`` and ``x^T S x`` with w the mean and S the
    covariance of the class vectors.

    Reference implementation: std + 1e-12, whose slope is not finite where all outputs are equal; here the
    root of variance + 1e-12. The class vectors are kept as ``V U + 1 s^T`` (Vincent et al., NeurIPS 2015,
    arXiv 1412.7091): a step of SGD changes U, s and the batch's own rows of V, and the sums over V are
    brought up to date by those rows. U is multiplied into V when it is badly conditioned.
    """

    name = "z_loss"
    paper = "de Brébisson and Vincent, The Z-loss, 2016, arXiv 1604.08859"
    when = "Outputs whose scale must not matter; very many classes at the cost of few."
    positive = ClassVectorLoss.positive | {"a"}
    vectors = "weight"

    weight: Tensor
    mix: Tensor
    shift: Tensor
    moments: Tensor
    total: Tensor
    steps: Tensor

    def __init__(
        self, num_classes: int, embedding_dim: int, a: float = 1.0, b: float = 0.0, lr: float = 3.0
    ) -> None:
        super().__init__(num_classes)
        self.a, self.b, self.lr = a, b, lr
        self.register_buffer("weight", torch.randn(num_classes, embedding_dim) / embedding_dim**0.5)
        self.register_buffer("mix", torch.eye(embedding_dim, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(embedding_dim, dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(embedding_dim, embedding_dim, dtype=torch.float64))
        self.register_buffer("total", torch.zeros(embedding_dim, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._sum_rows()
        # since the last step: classes, and leaves for the gradients of their vectors, mean and covariance
        self.collected: list[tuple[Tensor, list[Tensor]]] = []

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rows, positions = torch.unique(labels, return_inverse=True)
        own, mean, covariance = (
            part.to(embeddings.dtype) for part in (self._compute_vectors(rows), *self._compute_moments())
        )
        if torch.is_grad_enabled():
            leaves = [part.requires_grad_() for part in (own, mean, covariance)]
            self.collected += [(rows, leaves)] if self.training else []
        items = F.normalize(embeddings, dim=1)
        deviation = (((items @ covariance) * items).sum(1).clamp(min=0) + 1e-12).sqrt()
        z = (items * (own[positions] - mean)).sum(1) / deviation
        return F.softplus(self.a * (self.b - z)) / self.a

    @torch.no_grad()
    def end_step(self, lr_factor: float = 1.0) -> None:
        """One step of SGD on all class vectors; touches the batch's own rows and d x d numbers."""
        parts = [
            (rows, [leaf.grad for leaf in leaves if leaf.grad is not None]) for rows, leaves in self.collected
        ]
        self.collected.clear()
        parts = [(rows, gradients) for rows, gradients in parts if gradients]
        if not parts:
            return
        rows, positions = torch.unique(torch.cat([rows for rows, _ in parts]), return_inverse=True)
        own, of_mean, of_covariance = (
            [gradients[part].to(self.mix) for _, gradients in parts] for part in range(3)
        )
        of_rows = self.mix.new_zeros(len(rows), len(self.mix)).index_add(0, positions, torch.cat(own))
        slope = sum(of_covariance, torch.zeros_like(self.mix)) / self.num_classes
        slope = slope + slope.T
        mean, _ = self._compute_moments()
        of_all = sum(of_mean, torch.zeros_like(mean)) / self.num_classes - slope @ mean

        rate = self.lr * lr_factor
        turn = torch.eye(len(self.mix)).to(self.mix) - rate * slope
        self.mix.copy_(self.mix @ turn)
        self.shift.copy_(turn.T @ self.shift - rate * of_all)
        before = self.weight[rows]
        # rows of V move by what becomes the gradient once U is multiplied to them
        moved = before - rate * torch.linalg.solve(self.mix, of_rows, left=False).to(before)
        self.weight[rows] = moved
        old, new = before.to(self.mix), moved.to(self.mix)
        self.moments += new.T @ new - old.T @ old
        self.total += (new - old).sum(0)
        self.steps += 1
        if int(self.steps) % CHECK_EVERY == 0 and float(torch.linalg.cond(self.mix)) > WORST_CONDITION:
            self._multiply_out()

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d]."""
        self._multiply_out()
        return self.weight

    def read_class_vectors(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        if not {"weight", "mix", "shift"} <= tensors.keys():
            return None
        return (tensors["weight"].double() @ tensors["mix"] + tensors["shift"]).float()

    def set_class_vectors(self, rows: Tensor, vectors: Tensor) -> None:
        """Replace the vectors of some classes, bool [num_classes] and float [k, d]."""
        super().set_class_vectors(rows, vectors)
        self._sum_rows()

    def _compute_vectors(self, rows: Tensor) -> Tensor:
        """Class vectors of those rows, in the precision of the factors [k, d]."""
        return self.weight[rows].to(self.mix) @ self.mix + self.shift

    def _compute_moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d] and covariance [d, d] of all class vectors; the shift does not vary."""
        mean = self.total / self.num_classes
        covariance = self.moments / self.num_classes - torch.outer(mean, mean)
        return mean @ self.mix + self.shift, self.mix.T @ covariance @ self.mix

    @torch.no_grad()
    def _multiply_out(self) -> None:
        """``V U + 1 s^T`` becomes V; the one operation on all rows."""
        if torch.equal(self.mix, torch.eye(len(self.mix)).to(self.mix)) and not self.shift.any():
            return
        self.weight.copy_(self.weight @ self.mix.to(self.weight) + self.shift.to(self.weight))
        self.mix.copy_(torch.eye(len(self.mix)))
        self.shift.zero_()
        self._sum_rows()

    @torch.no_grad()
    def _sum_rows(self) -> None:
        self.moments.zero_()
        self.total.zero_()
        for start in range(0, len(self.weight), ROWS_AT_ONCE):
            rows = self.weight[start : start + ROWS_AT_ONCE].to(self.moments)
            self.moments += rows.T @ rows
            self.total += rows.sum(0)
