"""The feed of an epoch: its batches ready for a step, in the order of the plan."""

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
    """This process's shard of a micro-batch.

    Attributes:
        inputs: float [n, *input shape], augmented. labels: int64 [n], class codes.
        rows: int [m], those of the micro-batch, the shards of all processes, by rank.
        weight: of this batch in the step: 1 unless gradients accumulate.
        own_seed: for what each process draws itself. common_seed: for what all must draw alike.
        teacher: float [n, d], a teacher's features; None without one.
        unlabelled: float [k, *input shape], items of the teacher's own data, and their features [k, d].
        is_query: bool [n], which items ask; None where all are compared with all.
    """

    inputs: Tensor
    labels: Tensor
    rows: RowIndices
    weight: float
    own_seed: int
    common_seed: int
    teacher: Tensor | None = None
    unlabelled: Tensor | None = None
    unlabelled_features: Tensor | None = None
    is_query: Tensor | None = None


class BatchFeed:
    """An epoch's micro-batches in order; what they hold follows from seed and step alone.

    Each can be built ahead, while a GPU still computes the gradients of the one before. A thread for this
    made steps longer on an H100, not shorter: both need the GIL.

    Args:
        plan: the rows of each step. first_step: global index of the plan's first step.
        unlabelled: the teacher's own data, of which rows are drawn for every batch.
    """

    def __init__(
        self,
        plan: Sequence[RowIndices],
        first_step: int,
        config: Config,
        inputs: TrainingInputs,
        processes: Processes,
        unlabelled: TrainingInputs | None = None,
    ) -> None:
        self._config, self._inputs, self._processes = config, inputs, processes
        self._unlabelled = unlabelled
        self._upcoming = self._build_batches(plan, first_step)
        self._ahead: Batch | None = None

    def next(self) -> Batch:
        """The next batch; raises StopIteration at the end."""
        batch, self._ahead = self._ahead or next(self._upcoming), None
        return batch

    def prefetch(self) -> None:
        """Build the next batch ahead, if there is one."""
        self._ahead = next(self._upcoming, None)

    def _build_batches(self, plan: Sequence[RowIndices], first_step: int) -> Iterator[Batch]:
        accumulate = self._config.optimizer.accumulate
        micro_batches = [
            (step, number, micro_batch, len(rows))
            for step, rows in enumerate(plan, first_step)
            for number, micro_batch in enumerate(np.array_split(rows, accumulate))
        ]
        for place, (step, number, micro_batch, whole) in enumerate(micro_batches, 1):
            seeds = np.random.SeedSequence([self._config.seed, step, number])
            own, common = seeds.generate_state(2).tolist()
            own += self._processes.rank
            shard = self._processes.select_shard(micro_batch)
            inputs = self._inputs(shard, torch.Generator().manual_seed(own))
            if place < len(micro_batches):
                self._inputs.expect(self._processes.select_shard(micro_batches[place][2]))
            labels = self._inputs.get_labels(shard)
            teacher = self._inputs.get_teacher_features(shard)
            further = self._draw_unlabelled(common, own)
            weight = len(micro_batch) / whole
            roles = self._inputs.get_roles(shard)
            yield Batch(inputs, labels, micro_batch, weight, own, common, teacher, *further, roles)

    def _draw_unlabelled(self, common: int, own: int) -> tuple[Tensor | None, Tensor | None]:
        """Inputs of this process's shard of the items drawn, and the teacher's features of them."""
        source, teacher = self._unlabelled, self._config.teacher
        if source is None or teacher is None:
            return None, None
        count = min(len(source.codes), -(-teacher.data_per_batch // self._config.optimizer.accumulate))
        rows = np.random.default_rng([common, 1]).choice(len(source.codes), count, replace=False)
        shard = self._processes.select_shard(rows)
        generator = torch.Generator().manual_seed(own + 1)
        return source(shard, generator), source.get_teacher_features(shard)
