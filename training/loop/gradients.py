"""Gradients of a micro-batch: through the network in one piece or in chunks, and losses of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.config import Config
from training.batches.batch_feed import Batch
from training.loop.train_state import TrainState
from training.losses import Lesson
from training.runtime.all_gather import gather_batch
from training.runtime.device import HostCopy, is_bfloat16_enabled
from training.runtime.distributed import Processes


class Gradients:
    """Adds the gradient of a micro-batch to those of network and losses.

    Args:
        forms: of each item, see ``training.batches.batch_inputs.count_forms``.
    """

    def __init__(self, config: Config, state: TrainState, processes: Processes, forms: int) -> None:
        self.config, self.state, self.processes, self.forms = config, state, processes, forms
        self._autocast = partial(
            torch.autocast,
            processes.device.type,
            torch.bfloat16,
            enabled=is_bfloat16_enabled(config, processes.device),
        )

    def add(self, batch: Batch, done: float) -> HostCopy:
        """The loss of the micro-batch when a fraction ``done`` of the run is done."""
        inputs = batch.inputs if batch.unlabelled is None else torch.cat([batch.inputs, batch.unlabelled])
        size = self.config.optimizer.chunk
        if size is None or len(inputs) <= size:
            torch.manual_seed(batch.own_seed)  # for dropout, which draws from torch's own
            values, outputs = self._embed(inputs, batch.is_query)
            loss = self._compute_loss(outputs, batch, done, self._select_mixing(batch.inputs, values))
            copy = HostCopy(loss)
            torch.autograd.backward(loss)
            return copy
        return self._add_in_chunks(inputs, batch, done, size)

    def _add_in_chunks(self, inputs: Tensor, batch: Batch, done: float, size: int) -> HostCopy:
        """Gradient cache (Gao et al. 2021, arXiv 2101.06983): the outputs of all chunks without a graph, the
        gradient of the loss with respect to them, then chunk by chunk that of the weights."""
        # as many in every process: norms over processes wait for each other
        longest = self.processes.reduce_max(len(inputs))[0]
        chunks = inputs.tensor_split(math.ceil(longest / size))
        with torch.no_grad(), keep_buffers(self.state.network):
            parts = [self._embed_chunk(chunk, batch.own_seed, k) for k, chunk in enumerate(chunks)]
        leaves = [torch.cat(pieces).requires_grad_() for pieces in zip(*parts, strict=True)]
        loss = self._compute_loss(leaves, batch, done, {})
        copy = HostCopy(loss)
        torch.autograd.backward(loss)
        sizes = [len(chunk) for chunk in chunks]
        gradients = [
            torch.split(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, sizes) for leaf in leaves
        ]
        for k, chunk in enumerate(chunks):
            outputs = self._embed_chunk(chunk, batch.own_seed, k)
            if outputs[-1].requires_grad:  # else there are only vectors of the losses to train
                torch.autograd.backward(outputs, [of_output[k] for of_output in gradients])
        return copy

    def _embed_chunk(self, chunk: Tensor, seed: int, number: int) -> list[Tensor]:
        torch.manual_seed(seed + number)  # the same dropout both times
        return self._embed(chunk)[1]

    def _embed(self, inputs: Tensor, is_query: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """What a mixup mixes, and the outputs of the network's exits and its end, rows of any length."""
        network, block = self.state.network, self.state.objective.block
        with self._autocast():
            if is_query is not None:
                outputs = network.compute_outputs_by_role(inputs, is_query)
                return outputs, [outputs]
            if block is None:
                exits, values = network.run_exits(inputs)
                return values, [*exits, network.compute_outputs(values)]
            values = network.extract_features(inputs, block)
            return values, [network.compute_outputs(network.finish_features(values, block))]

    def _compute_loss(
        self, outputs: list[Tensor], batch: Batch, done: float, mixing: dict[str, Any]
    ) -> Tensor:
        """The objective over the items of all processes, weighted as the micro-batch is in the step."""
        state, n = self.state, len(batch.labels)
        early = [gather_batch(part[:n], batch.labels)[0] for part in outputs[:-1]]
        own, labels = gather_batch(outputs[-1][:n], batch.labels)
        gathered = F.normalize(own, dim=1)
        if state.neighbours:
            state.neighbours.update(gathered, labels)
        if state.margins:
            items = torch.from_numpy(batch.rows // self.forms).to(gathered.device)
            state.margins.update(gathered, labels, items)
        state.objective.set_rows(torch.from_numpy(batch.rows).to(gathered.device))
        torch.manual_seed(batch.common_seed)  # for mixup, which must draw the same in all processes
        lesson = None
        if batch.teacher is not None:
            lesson = Lesson(own, gather_batch(batch.teacher, batch.labels)[0], labels)
        if lesson is not None and batch.unlabelled is not None and batch.unlabelled_features is not None:
            none = batch.labels.new_full((len(batch.unlabelled),), -1)
            further, codes = gather_batch(outputs[-1][n:], none)
            features, _ = gather_batch(batch.unlabelled_features, none)
            early = [
                torch.cat([part, gather_batch(whole[n:], none)[0]])
                for part, whole in zip(early, outputs[:-1], strict=True)
            ]
            lesson = Lesson(
                torch.cat([own, further]),
                torch.cat([lesson.features, features]),
                torch.cat([labels, codes]),
            )
        roles = None
        if batch.is_query is not None:
            roles = gather_batch(batch.is_query[:, None].float(), batch.labels)[0][:, 0] > 0
        loss: Tensor = state.objective(gathered, labels, done, lesson, exits=early, is_query=roles, **mixing)
        return loss * batch.weight

    def _select_mixing(self, inputs: Tensor, values: Tensor) -> dict[str, Any]:
        """Arguments of the mixup: inputs or features and their encoder; none where it mixes embeddings.

        Args:
            values: what came out of the block that is mixed, of the whole backbone unless one is named.
        """
        network, level, block = self.state.network, self.state.objective.level, self.state.objective.block
        if level not in ("input", "feature"):
            return {}

        def encode(mixed: Tensor) -> Tensor:
            with self._autocast():
                if level == "feature":
                    return network.project(network.finish_features(mixed, block))
                embedded: Tensor = network(mixed)
                return embedded

        return {"mixable": inputs if level == "input" else values, "encode": encode}


@contextmanager
def keep_buffers(*modules: nn.Module | None) -> Iterator[None]:
    """Put running statistics, queues and counters back to what they were before."""
    buffers = [buffer for module in modules if module is not None for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


@torch.no_grad()
def climb(optimizer: torch.optim.Optimizer, radius: float) -> list[tuple[Tensor, Tensor]]:
    """Move all weights by ``radius`` along their gradient (sharpness-aware minimisation, Foret et al. 2021,
    arXiv 2010.01412), take the gradients away, and return the weights with their former values."""
    weights = [
        weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None
    ]
    norm = torch.stack([weight.grad.norm().float() for weight in weights]).norm()
    before = [(weight, weight.clone()) for weight in weights]
    for weight in weights:
        weight.add_(weight.grad * (radius / (norm + 1e-12)).to(weight))
    optimizer.zero_grad(set_to_none=True)
    return before


@torch.no_grad()
def return_to(before: list[tuple[Tensor, Tensor]]) -> None:
    """Put weights back to their former values; their gradients stay."""
    for weight, value in before:
        weight.copy_(value)
