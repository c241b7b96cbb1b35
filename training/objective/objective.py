"""The training objective: the configured losses over the pairs that the configured miner selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.class_corners import ClassCorners
from api_schemas.config import Config, LossConfig
from api_schemas.operating_point import Probability
from common.errors import ConfigError
from training.losses import (
    Lesson,
    Loss,
    TrainingClasses,
    Weight,
    WeightedSum,
    build_loss,
    start_from_class_means,
)
from training.losses.item_loss import ItemLoss
from training.objective.bad_pairs import BadPairs, track_bad_pairs
from training.objective.cross_batch_memory import build_memory
from training.objective.miners import build_miner
from training.objective.mixup import build_mixup


class Objective(nn.Module):
    """Called ``(embeddings, labels)``; the parameters of the losses (class vectors) are trained too.

    A mixup wraps the losses that have a generalised form; the others of a sum stay as they are. Where the
    network is trained for several sizes (``model.sizes``: Matryoshka, Kusupati et al. 2022, arXiv 2205.13147)
    or with several exits (``model.exits``: Gurioli et al. 2025, arXiv 2503.03008), each has losses of its own
    and the mean over all of them counts; an exit also learns ``exit_distillation * mean(1 - cos(exit,
    sg(last)))``.

    Args:
        classes: that are trained on; a number alone where no loss needs to know more of them.

    Attributes:
        level: where the mixup mixes, ``input``, ``feature`` or ``embedding``; None without one.
        block: of the backbone's chain, from 1, after which features are mixed; None at its end.

    Raises:
        ConfigError: an unknown loss, miner, mixup or memory, a parameter that one does not take, a mixup
            that fits none of the losses, or class means for a loss without class vectors.
    """

    def __init__(self, config: Config, classes: TrainingClasses | int) -> None:
        super().__init__()
        if isinstance(classes, int):
            classes = TrainingClasses.build_placeholder(classes)
        dimension = config.model.view_dim
        self.class_names = classes.names
        self.miner = build_miner(config.miner) if config.miner else None
        losses = self._build_losses(config, classes, dimension)
        if config.mixup and all(loss.roles is None for loss in losses):
            names = ", ".join(spec.name for spec in config.loss)
            raise ConfigError(
                f"mixup: none of the losses ({names}) has a generalised form that can be mixed: leave mixup "
                "out, or add a loss that has one, e.g. multi_similarity."
            )
        mixup = config.mixup.parameters if config.mixup else {}
        self.level = mixup.get("level", "embedding") if config.mixup else None
        block = mixup.get("block")
        self.block = block if isinstance(block, int) else None
        self.from_means: list[Loss] = []
        self.loss = self._build_sum(config, losses, dimension)
        self.sizes, self.exit_distillation = config.model.sizes, config.model.exit_distillation
        lengths = [*self.sizes, *(dimension for _ in config.model.exits)]
        self.further = nn.ModuleList(
            self._build_sum(config, self._build_losses(config, classes, length), length) for length in lengths
        )

    @staticmethod
    def _build_losses(config: Config, classes: TrainingClasses, dimension: int) -> list[Loss]:
        losses = [build_loss(spec, classes=classes, embedding_dim=dimension) for spec in config.loss]
        for loss, spec in zip(losses, config.loss, strict=True):
            given = config.optimizer.loss_lr_factor if spec.lr_factor is None else spec.lr_factor
            loss.lr_factor = loss.lr_factor if given is None else given
            if spec.bad_pairs is not None:
                track_bad_pairs(loss, spec.bad_pairs, sum(classes.sizes), dimension)
        return losses

    def _build_sum(self, config: Config, losses: list[Loss], dimension: int) -> WeightedSum:
        """The losses of embeddings of one length, with mixup and memory, and their weights."""
        started = list(compress(losses, [spec.start_from_class_means for spec in config.loss]))
        self.from_means += started
        for loss in started:
            if loss.vectors is None:
                raise ConfigError(
                    f"loss ({loss.name}): start_from_class_means is for losses with one vector per class."
                )
        parts: list[nn.Module] = []
        for loss in losses:
            part = build_mixup(config.mixup, loss) if config.mixup and loss.roles else loss
            if config.memory and not (config.teacher and loss.follows_teacher):
                part = build_memory(config.memory, part, embedding_dim=dimension, miner=self.miner)
            parts.append(part)
        return WeightedSum(parts, [_build_weight(spec) for spec in config.loss])

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        done: float = 0.0,
        lesson: Lesson | None = None,
        exits: Sequence[Tensor] = (),
        is_query: Tensor | None = None,
        **mixing: Any,
    ) -> Tensor:
        """Float [n, d] unit rows, int [n] class codes and the fraction of the run that is done, to a scalar.

        Args:
            lesson: for the losses that follow a teacher, where there is one.
            is_query: bool [n]: queries are compared with the items alone and items with the queries, and the
                mean of both counts; None where all are compared with all.
            exits: outputs of the network's exits, float [m, d] each, of the items and of those that the
                lesson has beyond them.
            mixing: what a mixup at another level than ``embedding`` needs, see ``Metrix.forward``.
        """
        if is_query is not None:
            (queries, asked), (items, held) = (
                (embeddings[part], labels[part]) for part in (is_query, ~is_query)
            )
            of_queries: Tensor = self.loss(queries, asked, None, done, references=(items, held))
            of_items: Tensor = self.loss(items, held, None, done, references=(queries, asked))
            return (of_queries + of_items) / 2
        indices = self.miner(embeddings.detach(), labels) if self.miner else None
        total: Tensor = self.loss(embeddings, labels, indices, done, lesson, **mixing)
        if not len(self.further):
            return total
        sums = iter(self.further)
        for size in self.sizes:
            first = F.normalize(embeddings[:, :size], dim=1)
            total = total + next(sums)(first, labels, indices, done, lesson and lesson.cut(size))
        for outputs in exits:
            early = F.normalize(outputs[: len(labels)], dim=1)
            own = lesson and replace(lesson, outputs=outputs)
            apart = 1 - (early * embeddings.detach()).sum(1).mean()
            total = total + next(sums)(early, labels, indices, done, own) + self.exit_distillation * apart
        return total / (1 + len(self.further))

    def set_rows(self, rows: Tensor) -> None:
        """Say which training rows the next batch holds, int [n], to what keeps something for each."""
        for part in self.modules():
            if isinstance(part, ItemLoss | BadPairs):
                part.rows = rows

    def end_step(self, lr_factor: float = 1.0) -> None:
        """After a step of the optimizer: losses that update their own vectors do so, on the schedule."""
        for loss in self._list_losses():
            loss.end_step(lr_factor)

    def describe_classes(self) -> list[str]:
        """What the losses make of the training classes, a sentence each."""
        sentences = [loss.describe_classes(self.class_names) for loss in self._list_losses(self.loss)]
        return [sentence for sentence in sentences if sentence]

    def get_class_corners(self) -> ClassCorners | None:
        """Which fixed class vector belongs to which class; None where all are learned."""
        corners = (loss.class_corners for loss in self._list_losses(self.loss))
        return next((found for found in corners if found is not None), None)

    def get_match_probability(self) -> Probability | None:
        """What a loss learned of the probability of a match, from a cosine; None where none does."""
        found = (loss.match_probability for loss in self._list_losses(self.loss))
        return next((probability for probability in found if probability is not None), None)

    def collect_figures(self) -> dict[str, float]:
        """Figures of the losses' own state, for the log of the epochs."""
        parts = [part for part in self.loss.modules() if isinstance(part, Loss | BadPairs)]
        return {name: value for part in parts for name, value in part.collect_figures().items()}

    def _list_losses(self, part: nn.Module | None = None) -> list[Loss]:
        """Those in a part, all of them without one, without what wraps them; a loss within a memory is one of
        them."""
        return [module for module in (part or self).modules() if isinstance(module, Loss)]

    def start_class_vectors(self, embeddings: Tensor, labels: Tensor) -> None:
        """Set the class vectors that should start from the class means: float [n, d] and int [n]."""
        for loss in self.from_means:
            start_from_class_means(loss, embeddings, labels)


def _build_weight(spec: LossConfig) -> float | Weight:
    return spec.weight if isinstance(spec.weight, float) else Weight(**spec.weight.model_dump())
