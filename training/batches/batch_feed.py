"""Batches ready for a step, in the order of an epoch's plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from api_schemas.config import Config
from common.array_types import RowIndices
from training.batches.batch_inputs import TrainingInputs
from training.runtime.distributed import Processes


@dataclass(frozen=True)
class Batch:
    """This process's share of what is computed at once.

    Attributes:
        inputs: float [n, *input shape], augmented. labels: int64 [n], class codes.
        weight: of this batch in the step: 1 unless gradients accumulate.
        own_seed: for what each process draws itself. common_seed: for what all must draw alike.
    """

    inputs: Tensor
    labels: Tensor
    weight: float
    own_seed: int
    common_seed: int


class Feed:
    """An epoch's batches one after the other; what they hold follows from seed and step alone.

    Each can be made ahead, while a GPU still computes the gradients of the one before. A thread for this made
    steps longer on an H100, not shorter: both want the interpreter.

    Args:
        plan: the rows of each step. first_step: the number of the plan's first, counted over the run.
    """

    def __init__(
        self,
        plan: Sequence[RowIndices],
        first_step: int,
        config: Config,
        inputs: TrainingInputs,
        processes: Processes,
    ) -> None:
        self._config, self._inputs, self._processes = config, inputs, processes
        self._coming = self._batches(plan, first_step)
        self._ahead: Batch | None = None

    def next(self) -> Batch:
        """The batch that is due; there must be one."""
        batch, self._ahead = self._ahead or next(self._coming), None
        return batch

    def make_next(self) -> None:
        """Make the batch after this one, if there is one."""
        self._ahead = next(self._coming, None)

    def _batches(self, plan: Sequence[RowIndices], first_step: int) -> Iterator[Batch]:
        for step, rows in enumerate(plan, first_step):
            for number, whole in enumerate(np.array_split(rows, self._config.optimizer.accumulate)):
                seeds = np.random.SeedSequence([self._config.seed, step, number])
                own, common = seeds.generate_state(2).tolist()
                own += self._processes.rank
                share = self._processes.select_shard(whole)
                inputs = self._inputs(share, torch.Generator().manual_seed(own))
                labels = self._inputs.labels(share)
                yield Batch(inputs, labels, len(whole) / len(rows), own, common)
