"""Several losses as one: a sum with weights that may change during the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from training.losses.parts.loss_batch import Indices


@dataclass(frozen=True)
class Weight:
    """A weight that moves in a straight line from ``start`` to ``end`` between two fractions of the run."""

    start: float
    end: float
    begins: float = 0.0
    ends: float = 1.0

    def compute_value(self, done: float) -> float:
        """The weight when a fraction ``done`` of the run, 0 to 1, is done."""
        if done >= self.ends:
            return self.end
        way = max(0.0, done - self.begins) / (self.ends - self.begins)
        return self.start + (self.end - self.start) * way


@dataclass(frozen=True)
class Lesson:
    """What a loss that follows a teacher compares.

    Attributes:
        outputs: float [n, d], the network's, before they are brought to unit length.
        features: float [n, d], the teacher's of the same items.
        labels: int [n]. Items of the teacher's own data come last and have -1.
    """

    outputs: Tensor
    features: Tensor
    labels: Tensor

    def leave_out_unlabelled(self) -> Lesson:
        """The items of the training data alone."""
        n = int((self.labels >= 0).sum())
        return self if n == len(self.labels) else Lesson(self.outputs[:n], self.features[:n], self.labels[:n])

    def cut(self, size: int) -> Lesson:
        """The same for the first numbers of the network's outputs."""
        return Lesson(self.outputs[:, :size], self.features, self.labels)


class WeightedSum(nn.Module):
    """``sum_k weight_k(done) * loss_k``.

    Args:
        losses: the terms.
        weights: one number or ``Weight`` each; 1 by default.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float | Weight] | None = None) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.weights: Sequence[float | Weight] = [1.0] * len(losses) if weights is None else weights
        if len(self.weights) != len(losses):
            raise ValueError(f"{len(losses)} losses need as many weights, found {len(self.weights)}")

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        done: float = 0.0,
        lesson: Lesson | None = None,
        references: tuple[Tensor, Tensor] | None = None,
        **mixing: Any,
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar, with the weights after a fraction ``done`` of the run.

        ``lesson`` goes to the losses that follow a teacher, ``mixing`` to those that a mixup wraps;
        ``references``, float [m, d] and int [m], are what all others compare the items with.
        """
        total = 0 * embeddings.sum()  # with a gradient even where no term has begun yet
        for weight, loss in zip(self.weights, self.losses, strict=True):
            if factor := weight.compute_value(done) if isinstance(weight, Weight) else weight:
                own = mixing if getattr(loss, "mixes", False) else {}
                if lesson is not None and getattr(loss, "follows_teacher", False):
                    part = (
                        lesson if getattr(loss, "takes_unlabelled", False) else lesson.leave_out_unlabelled()
                    )
                    value = loss(part.outputs, part.labels, indices, part.features, part.labels)
                elif references is not None:
                    value = loss(embeddings, labels, indices, *references)
                else:
                    value = loss(embeddings, labels, indices, **own)
                total = total + factor * value
        return total
