"""AdamP: AdamW without the part of a step that only lengthens scale-invariant weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.1  # of the cosine between gradient and weight, times the root of the length
WEIGHT_DECAY_RATIO = 0.1
EPSILON = 1e-8


class AdamP(torch.optim.AdamW):
    """Heo et al., ICLR 2021, arXiv 2006.08217: Adam for weights whose length does not matter to the loss.

    The step p of AdamW (Nesterov off) loses ``(p . w) w / |w|^2`` where the gradient g is orthogonal to the
    weight w, ``max |cos(g, w)| < 0.1 / sqrt(d)`` over the rows of d numbers, or over the whole tensor: so it
    is for weights that a norm or a cosine follows. There the weight decay is a tenth. Vectors (biases,
    norms) and weights that fail the test move as with AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            first, second = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"] = torch.zeros_like(weight)
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                state["step"] += 1
                done = float(state["step"])
                mean = state["exp_avg"].lerp_(weight.grad, 1 - first)
                square = state["exp_avg_sq"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
                scale = square.sqrt().div_((1 - second**done) ** 0.5).add_(group["eps"])
                change, ratio = project(weight, weight.grad, mean / scale / (1 - first**done))
                weight.mul_(1 - group["lr"] * group["weight_decay"] * ratio)
                weight.add_(change, alpha=-group["lr"])


def project(weight: Tensor, gradient: Tensor, change: Tensor) -> tuple[Tensor, float]:
    """The step without its part along the weight where that is scale-invariant, and the factor on the weight
    decay; rows first, then the whole tensor."""
    if weight.ndim < 2:
        return change, 1.0
    for rows in (len(weight), 1):
        flat = weight.reshape(rows, -1)
        cosines = F.cosine_similarity(gradient.reshape(rows, -1), flat, dim=1, eps=EPSILON)
        if float(cosines.abs().max()) < THRESHOLD / flat.shape[1] ** 0.5:
            unit = flat / (flat.norm(dim=1, keepdim=True) + EPSILON)
            moved = change.reshape(rows, -1)
            moved = moved - unit * (unit * moved).sum(1, keepdim=True)
            return moved.reshape(weight.shape), WEIGHT_DECAY_RATIO
    return change, 1.0
