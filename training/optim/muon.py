"""Muon: matrices move by their orthogonalised momentum, everything else as AdamW moves it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; the steepest at 0 that stays near 1 (Jordan 2024)
ITERATIONS = 5
MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, for whole networks.

    A matrix W [a, b] of a group with ``orthogonal: True`` moves by ``-lr * sqrt(max(1, a / b)) * O``, where O
    is what ``orthogonalise`` makes of ``(1 - m) G + m M``, M the running mean of the gradients G and m 0.95
    (Nesterov's form); before, it shrinks by ``lr * weight_decay``. A kernel [out, in, h, w] is the matrix
    [out, in * h * w]. Other groups are AdamW's.

    torch.optim.Muon does the same to matrices alone, in bfloat16: kernels it refuses, and bfloat16 is slow on
    most processors.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; those of matrices are used up."""
        for group in self.param_groups:
            if not group.get("orthogonal"):
                continue
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
                    weight.grad = None  # leaves nothing to do for AdamW
        super().step(closure)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:  # under AdamW's names, which it looks for when a state is loaded
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight)
        state["step"] += 1
        mean = state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        change = orthogonalise(gradient.lerp(mean, MOMENTUM).flatten(1))
        tall = max(1.0, change.shape[0] / change.shape[1]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(change.reshape(weight.shape), alpha=-group["lr"] * tall)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Float [a, b] to nearly ``U V^T`` of its singular value decomposition ``U S V^T``, of the same shape.

    Newton-Schulz: ``X <- c0 X + (c1 A + c2 A^2) X`` with ``A = X X^T``, five times, from X of Frobenius
    norm 1. Singular values end between 0.68 and 1.13 unless they were below a thousandth of the norm.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    flat = matrix.T if tall else matrix
    flat = flat / flat.norm().clamp(min=1e-7)
    first, second, third = COEFFICIENTS
    for _ in range(ITERATIONS):
        product = flat @ flat.T
        flat = torch.addmm(
            flat, torch.addmm(product, product, product, beta=second, alpha=third), flat, beta=first
        )
    return flat.T if tall else flat
