"""Synchronised batch normalisation over all processes; torch's own needs a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError

APPLIED_AFTERWARDS = {
    "BatchNorm1d": [],
    "BatchNorm2d": [],
    "BatchNorm3d": [],
    "BatchNormAct2d": ["drop", "act"],
}
"""Kind of batch normalisation, torch's or timm's, to the modules that it applies afterwards."""


def synchronise_batch_norms(network: nn.Module) -> None:
    """Make every batch normalisation of a network use the items of all processes; names and weights stay.

    Raises:
        ConfigError: a kind of batch normalisation that does something else besides.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, CrossProcessBatchNorm(child))


class CrossProcessBatchNorm(_BatchNorm):
    """Mean and variance over all processes, with gradients through both; two exchanges a layer.

    The mean comes first and the variance around it (two passes), so nothing cancels in float32. Averaging
    the weights' gradients over processes gives those of one process with the joined batch, as
    ``training.runtime.all_gather`` does for the loss.
    """

    def __init__(self, plain: _BatchNorm) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(plain, name))
        applied_afterwards, kind = dict(plain.named_children()), type(plain).__name__
        if list(applied_afterwards) != APPLIED_AFTERWARDS.get(kind):
            raise ConfigError(
                f"model.backbone: its {kind} layers do not fit several processes: train in one."
            )
        for name, module in applied_afterwards.items():
            self.add_module(name, module)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.ndim < 2:
            raise ValueError(f"expected [n, channels, ...], found {tuple(input.shape)}")

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, channels, ...] to the same shape; outside training the running statistics are used."""
        normalised = self._normalise(inputs) if self.training else super().forward(inputs)
        for module in self.children():
            normalised = module(normalised)
        return normalised

    def _normalise(self, inputs: Tensor) -> Tensor:
        values = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1, *([1] * (values.ndim - 2))]
        count = _sum_over_processes(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _sum_over_processes(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / count
        self._update_statistics(mean.detach(), (variance * count / (count - 1)).detach())
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(inputs.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        keep = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), keep)
        self.running_var.lerp_(variance.to(self.running_var), keep)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes; backwards, the sum of all processes' gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(value: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]
    return total
