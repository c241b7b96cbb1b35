"""The training loop, read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.config import Config
from decision.embeddings import EmbeddingSet
from decision.progress import Track
from training.augment import augmented, rotated_quarters
from training.checkpoint import BEST, CHECKPOINTS, keep_latest, save_checkpoint, save_weights
from training.data.items import Splits
from training.embed import Prepare, embed
from training.health import look_for_collapse, refuse_broken
from training.interrupt import Interruption
from training.losses.gather import joined_batch
from training.metrics import Metrics, describe
from training.network import Network
from training.processes import Processes
from training.samplers import Rows, batches
from training.schedule import rate_factor
from training.state import State
from training.validate import Figures, measure

Say = Callable[[str], None]


class Loop:
    """One run: what stays the same while it trains. ``state`` holds all that changes.

    Args:
        evaluated: a second network of the same shape; holds the averaged weights while they are measured.
        fingerprint: of the data, kept in every checkpoint.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        state: State,
        evaluated: Network,
        folder: Path,
        fingerprint: str,
        device: torch.device,
        track: Track,
        say: Say,
    ) -> None:
        self.config, self.splits, self.state, self.evaluated = config, splits, state, evaluated
        self.folder, self.fingerprint, self.device = folder, fingerprint, device
        self.processes = Processes(device)
        self.track, self.say = track, say
        self.prepare = Prepare(splits.preprocessing, device)
        self.quarters = quarter_turns(config)
        _, codes = np.unique(splits.train.labels, return_inverse=True)
        self.codes: Rows = (codes[:, None] * self.quarters + np.arange(self.quarters)).ravel()
        batch = min(config.sampler.batch_size, len(self.codes))
        self.steps = config.schedule.steps_per_epoch or max(1, len(splits.train) // batch)
        self.bfloat16 = in_bfloat16(config, device)
        self.metrics: Metrics | None = None  # of the first process, once it has something to write

    def fit(self) -> None:
        """Train until the schedule, the patience or the time ends; leaves checkpoints and metrics.

        Raises:
            InputError: the loss is no longer a number, the disk is full, or a signal asked to stop; the
                last good checkpoint is kept.
        """
        config, progress = self.config, self.state.progress
        progress.planned_steps = progress.planned_steps or self.steps * config.schedule.epochs
        began = time.monotonic() - progress.seconds
        if progress.step == 0 and self.state.objective.from_means:
            self._start_from_class_means()
        with Interruption() as interruption, ExitStack() as leaving:
            leaving.callback(self._close)
            while progress.step < progress.planned_steps:
                plan = batches(self.codes, config.sampler, self.steps, config.seed, progress.epoch)
                todo = plan[progress.step_in_epoch :][: progress.planned_steps - progress.step]
                started = time.monotonic()
                self.state.network.train()
                for rows in self.track(todo, f"epoch {progress.epoch + 1}", len(todo)):
                    progress.epoch_loss += self._step(rows)
                    progress.step += 1
                    progress.step_in_epoch += 1
                    self.state.update_average()
                    asked, progress.seconds = self.processes.largest(
                        bool(interruption.asked), time.monotonic() - began
                    )
                    if asked and progress.step_in_epoch < len(plan):
                        self._save()
                        raise interruption.stopped(progress.step)
                    if config.schedule.minutes and progress.seconds > 60 * config.schedule.minutes:
                        progress.planned_steps = progress.step
                        self.say(f"The {config.schedule.minutes:g} minutes of schedule.minutes are over.")
                        break
                speed = progress.step_in_epoch * len(plan[0]) / max(time.monotonic() - started, 1e-9)
                progress.finish_epoch()
                self.splits.refuse_change()
                embedded = self._embedded()
                if self.processes.first:
                    self._end_epoch(embedded, began, speed)
                progress.take(self.processes.of_first(progress.to_json()))
                (asked,) = self.processes.largest(bool(interruption.asked))
                if asked and progress.step < progress.planned_steps:
                    raise interruption.stopped(progress.step)

    def _end_epoch(self, embedded: EmbeddingSet | None, began: float, speed: float) -> None:
        """Measure, write and say what the epoch gave, and decide how many more there will be."""
        progress, patience = self.state.progress, self.config.schedule.patience
        figures = None if embedded is None else self._measured(embedded)
        better = self._keep_if_best(figures)
        progress.seconds = time.monotonic() - began
        if self.metrics is None:
            self.metrics = Metrics(self.folder, progress.epoch - 1)
        self.metrics.append(self.state, figures, speed)
        self.say(describe(self.state, figures, speed, better))
        if progress.step < progress.planned_steps and self._waited_enough():
            self.say(f"Stopping early: {patience} epochs without a better figure.")
            progress.planned_steps = progress.step
        else:
            self._fit_into_budget()
        self._save()

    def _step(self, rows: Rows) -> float:
        """One update from one batch; returns its loss. Every random draw follows from seed and step."""
        state, optimizer, config = self.state, self.state.optimizer, self.config
        done = state.progress.step / state.progress.planned_steps
        factor = rate_factor(state.progress.step, state.progress.planned_steps, config.schedule)
        for group, rate in zip(optimizer.param_groups, state.base_rates, strict=True):
            group["lr"] = rate * factor
        total = 0.0
        for number, whole in enumerate(np.array_split(rows, config.optimizer.accumulate)):
            seeds = np.random.SeedSequence([config.seed, state.progress.step, number])
            own, common = seeds.generate_state(2).tolist()
            generator = torch.Generator().manual_seed(own + self.processes.rank)
            torch.manual_seed(own + self.processes.rank)  # for dropout, which draws from torch's own
            piece = self.processes.share(whole)
            inputs = self._inputs(piece, generator)
            labels = torch.from_numpy(self.codes[piece]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                features = state.network.features(inputs)
                embeddings = state.network.project(features)
            joined, labels = joined_batch(embeddings, labels)
            torch.manual_seed(common)  # for mixup, which must draw the same in all processes
            loss = state.objective(joined, labels, done, **self._mixing(inputs, features))
            loss = loss * (len(whole) / len(rows))
            total += float(loss.detach())
            refuse_broken("loss", total, state)
            loss.backward()
        self.processes.average(
            [
                value.grad
                for group in optimizer.param_groups
                for value in group["params"]
                if value.grad is not None
            ]
        )
        norm = torch.nn.utils.clip_grad_norm_(
            state.network.parameters(), config.optimizer.clip_norm or math.inf
        )
        refuse_broken("gradient", float(norm), state)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def _start_from_class_means(self) -> None:
        """Class vectors at the mean embedding that the fresh network gives each class and quarter turn."""
        items, found = self.splits.train, []
        for turns in range(self.quarters):

            def turned(inputs: NDArray[np.generic], turns: int = turns) -> Tensor:
                prepared = self.prepare(inputs)
                if self.quarters == 1:
                    return prepared
                return rotated_quarters(prepared, torch.full((len(prepared),), turns, device=self.device))

            size = self.config.evaluation.batch_size
            embedded = embed(self.state.network, items, turned, size, self.track, self.processes)
            found.append(torch.from_numpy(embedded.vectors))
        vectors = torch.stack(found, dim=1).flatten(0, 1)  # in the order of the codes
        self.state.objective.start(vectors, torch.from_numpy(self.codes))

    def _mixing(self, inputs: Tensor, features: Tensor) -> dict[str, Any]:
        """What the mixup mixes and how that becomes embeddings; nothing where it mixes embeddings."""
        network, level = self.state.network, self.state.objective.level
        if level not in ("input", "feature"):
            return {}

        def encode(mixed: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                return network(mixed) if level == "input" else network.project(mixed)

        return {"mixable": inputs if level == "input" else features, "encode": encode}

    def _inputs(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """The augmented input batch; a row number holds the item and its quarter turns."""
        inputs = self.prepare(self.splits.train.inputs[rows // self.quarters])
        if not self.prepare.image:
            return inputs
        if self.quarters > 1:
            inputs = rotated_quarters(inputs, torch.from_numpy(rows % self.quarters).to(self.device))
        inputs = augmented(inputs, self.config.data.augmentation, generator)
        return inputs.contiguous(memory_format=torch.channels_last)  # the layout CPU convolutions are fast in

    def _embedded(self) -> EmbeddingSet | None:
        """The validation items where this epoch measures them; each process embeds its share."""
        progress, validation = self.state.progress, self.splits.validation
        last = progress.step >= progress.planned_steps
        if validation is None or not (last or progress.epoch % self.config.evaluation.every == 0):
            return None
        self.evaluated.load_state_dict(self.state.served_weights())
        size = self.config.evaluation.batch_size
        return embed(self.evaluated, validation, self.prepare, size, processes=self.processes)

    def _measured(self, embedded: EmbeddingSet) -> Figures:
        figures = measure(embedded, self.config.evaluation.exclude_same)
        warning = look_for_collapse(embedded, figures, self.state.progress.losses, self.config)
        if warning:
            self.say(warning)
        return figures

    def _keep_if_best(self, figures: Figures | None) -> bool:
        """Save the weights if validation says they are the best so far (always, without validation)."""
        progress = self.state.progress
        if figures is None:
            if self.splits.validation is None:
                save_weights(self.folder / CHECKPOINTS / BEST, self.state.served_weights())
            return False
        value = figures.height(self.config.evaluation.monitor)
        if progress.best is not None and value <= progress.best:
            return False
        progress.best, progress.best_epoch = value, progress.epoch
        save_weights(self.folder / CHECKPOINTS / BEST, self.state.served_weights())
        return True

    def _waited_enough(self) -> bool:
        progress, patience = self.state.progress, self.config.schedule.patience
        return (
            patience is not None
            and progress.best is not None
            and progress.epoch - progress.best_epoch >= patience * self.config.evaluation.every
        )

    def _fit_into_budget(self) -> None:
        """Plan fewer epochs when the time will not do, so that the learning rate still comes down."""
        progress, minutes = self.state.progress, self.config.schedule.minutes
        if minutes is None or progress.step >= progress.planned_steps:
            return
        per_epoch = progress.seconds / progress.epoch
        possible = progress.epoch + max(1, int((60 * minutes - progress.seconds) / per_epoch))
        if possible * self.steps < progress.planned_steps:
            progress.planned_steps = possible * self.steps
            self.say(f"An epoch takes {per_epoch:.0f} s: planning {possible} epochs in {minutes:g} minutes.")

    def _close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()

    def _save(self) -> None:
        if not self.processes.first:
            return
        path = self.folder / CHECKPOINTS / f"step-{self.state.progress.step:08d}.safetensors"
        save_checkpoint(path, self.state, self.config, self.fingerprint)
        keep_latest(self.folder / CHECKPOINTS, self.config.schedule.keep)


def quarter_turns(config: Config) -> int:
    """How many classes each training class becomes: 4 where its quarter turns count as classes."""
    return 4 if config.data.augmentation.rotations_as_classes else 1


def in_bfloat16(config: Config, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16; ``auto`` does so where the hardware is fast at it."""
    if config.precision == "auto":
        return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return config.precision == "bfloat16"
