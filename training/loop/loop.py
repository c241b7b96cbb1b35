"""The training loop, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from api_schemas.config import Config
from common.array_types import RowIndices
from common.progress import Track
from embeddings.embedding_set import EmbeddingSet
from training.batches.batch_feed import Feed
from training.batches.batch_inputs import Inputs
from training.batches.prepare import Prepare
from training.batches.samplers import batches
from training.data.items import Splits
from training.loop.budget import Budget
from training.loop.checkpoint import keep_latest, save_checkpoint
from training.loop.embed_split import embed
from training.loop.epoch_log import Metrics, describe
from training.loop.failure_checks import look_for_collapse, refuse_broken_gradient, refuse_broken_loss
from training.loop.train_state import State
from training.loop.validation_metrics import Figures, measure
from training.models.network import Network
from training.optim.lr_schedule import rate_factor
from training.run_folder.run_layout import BEST, CHECKPOINTS, save_weights
from training.runtime.all_gather import joined_batch
from training.runtime.device_transfer import Reading
from training.runtime.distributed import Processes
from training.runtime.stop_signals import Interruption

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
        self.inputs = Inputs(splits.train, self.prepare, config.data.augmentation)
        batch = min(config.sampler.batch_size, len(self.inputs.codes))
        self.steps = config.schedule.steps_per_epoch or max(1, len(splits.train) // batch)
        self.budget = Budget(config, self.steps)
        self.bfloat16 = in_bfloat16(config, device)
        self.metrics: Metrics | None = None  # of the first process, once it has something to write

    def fit(self) -> None:
        """Train until the schedule, the patience or the time ends; leaves checkpoints and metrics.

        Raises:
            InputError: the loss is no longer a number, the disk is full, or a signal asked to stop; the
                last good checkpoint is kept.
        """
        progress = self.state.progress
        self.budget.begin(progress)
        began = time.monotonic() - progress.seconds
        if progress.step == 0 and self.state.objective.from_means:
            self._start_from_class_means()
        with Interruption() as interruption, ExitStack() as leaving:
            leaving.callback(self._close)
            while progress.step < progress.planned_steps:
                speed = self._epoch(interruption, began)
                progress.finish_epoch()
                self.splits.refuse_change()
                embedded = self._embedded()
                if self.processes.first:
                    self._end_epoch(embedded, began, speed)
                progress.take(self.processes.of_first(progress.to_json()))
                (asked,) = self.processes.largest(bool(interruption.asked))
                if asked and progress.step < progress.planned_steps:
                    raise interruption.stopped(progress.step)

    def _epoch(self, interruption: Interruption, began: float) -> float:
        """The rest of the epoch's steps; returns how many items a second they took."""
        progress, config = self.state.progress, self.config
        plan = batches(
            self.inputs.codes, config.sampler, self.steps, config.seed, progress.epoch, self._nearest()
        )
        todo = plan[progress.step_in_epoch :][: progress.planned_steps - progress.step]
        feed = Feed(todo, progress.step, config, self.inputs, self.processes)
        started, seen = time.monotonic(), 0
        self.state.network.train()
        bar = self.track(todo, f"epoch {progress.epoch + 1}", len(todo))
        note = getattr(bar, "set_postfix_str", None)  # of a bar that shows more than its place
        for rows in bar:
            progress.epoch_loss += self._step(feed)
            progress.step += 1
            progress.step_in_epoch += 1
            seen += len(rows)
            self.state.update_average()
            speed = seen / max(time.monotonic() - started, 1e-9)
            if note:
                note(f"loss {progress.mean_loss:.4f}, {speed:.0f} items/s", refresh=False)
            asked, progress.seconds = self.processes.largest(
                bool(interruption.asked), time.monotonic() - began
            )
            if asked and progress.step_in_epoch < len(plan):
                self._save()
                raise interruption.stopped(progress.step)
            if over := self.budget.after_step(progress):
                self.say(over)
                break
        return speed

    def _end_epoch(self, embedded: EmbeddingSet | None, began: float, speed: float) -> None:
        """Measure, write and say what the epoch gave, and decide how many more there will be."""
        progress = self.state.progress
        figures = None if embedded is None else self._measured(embedded)
        better = self._keep_if_best(figures)
        progress.seconds = time.monotonic() - began
        if self.metrics is None:
            self.metrics = Metrics(self.folder, progress.epoch - 1)
        self.metrics.append(self.state, figures, speed)
        decided = self.budget.after_epoch(progress)
        self.say(describe(progress, figures, speed, better))
        if decided:
            self.say(decided)
        self._save()

    def _step(self, feed: Feed) -> float:
        """One update; returns its loss. Every random draw follows from seed and step."""
        state, optimizer, config = self.state, self.state.optimizer, self.config
        done = state.progress.step / state.progress.planned_steps
        factor = rate_factor(state.progress.step, state.progress.planned_steps, config.schedule)
        for group, rate in zip(optimizer.param_groups, state.base_rates, strict=True):
            group["lr"] = rate * factor
        total = 0.0
        for _ in range(config.optimizer.accumulate):
            batch = feed.next()
            torch.manual_seed(batch.own_seed)  # for dropout, which draws from torch's own
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                features = state.network.features(batch.inputs)
                embeddings = state.network.project(features)
            joined, labels = joined_batch(embeddings, batch.labels)
            if state.neighbours:
                state.neighbours.note(joined, labels)
            torch.manual_seed(batch.common_seed)  # for mixup, which must draw the same in all processes
            loss = state.objective(joined, labels, done, **self._mixing(batch.inputs, features))
            loss = loss * batch.weight
            reading = Reading(loss)
            loss.backward()
            feed.make_next()
            total += float(reading.read())
            refuse_broken_loss(total, state)
        gradients = [_gradients(group["params"]) for group in optimizer.param_groups]
        self.processes.average([gradient for group in gradients for gradient in group])
        norms = Reading(self._clip(gradients))
        optimizer.step()
        state.objective.end_step()
        refuse_broken_gradient(norms.read().tolist(), state)
        optimizer.zero_grad(set_to_none=True)
        return total

    def _clip(self, gradients: list[list[Tensor]]) -> Tensor:
        """Shorten the network's gradient where it is too long; float [groups], how long each group's was."""
        groups = self.state.optimizer.param_groups
        norms = torch.stack([get_total_norm(group).to(self.device) for group in gradients])
        of_network = [norm for norm, group in zip(norms, groups, strict=True) if group["name"] != "loss"]
        if self.config.optimizer.clip_norm and of_network:
            clip_grads_with_norm_(
                self.state.network.parameters(),
                self.config.optimizer.clip_norm,
                torch.stack(of_network).norm(),
            )
        return norms

    def _nearest(self) -> RowIndices | None:
        """The classes that come with each in this epoch's batches; None while they are drawn at random."""
        neighbours, progress, sampler = self.state.neighbours, self.state.progress, self.config.sampler
        if neighbours is None:
            return None
        done = progress.step / progress.planned_steps
        if progress.step_in_epoch == 0 and done >= sampler.neighbours_from:
            neighbours.begin_epoch()
        return neighbours.nearest(sampler.neighbours)

    def _start_from_class_means(self) -> None:
        """Class vectors at the mean embedding that the fresh network gives each class and form."""
        config = self.config
        found, size = [], config.evaluation.batch_size
        for form in range(self.inputs.forms):
            prepare = partial(self.inputs.in_form, form=form)
            items = self.splits.train
            embedded = embed(self.state.network, items, prepare, size, self.track, self.processes)
            view = embedded.vectors[:, : config.model.view_dim] * config.model.views**0.5  # the image's own
            found.append(torch.from_numpy(view))
        vectors = torch.stack(found, dim=1).flatten(0, 1)  # in the order of the codes
        self.state.objective.start(vectors, torch.from_numpy(self.inputs.codes))

    def _mixing(self, inputs: Tensor, features: Tensor) -> dict[str, Any]:
        """What the mixup mixes and how that becomes embeddings; nothing where it mixes embeddings."""
        network, level = self.state.network, self.state.objective.level
        if level not in ("input", "feature"):
            return {}

        def encode(mixed: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                return network(mixed) if level == "input" else network.project(mixed)

        return {"mixable": inputs if level == "input" else features, "encode": encode}

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

    def _close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()

    def _save(self) -> None:
        if not self.processes.first:
            return
        path = self.folder / CHECKPOINTS / f"step-{self.state.progress.step:08d}.safetensors"
        save_checkpoint(path, self.state, self.config, self.fingerprint)
        keep_latest(self.folder / CHECKPOINTS, self.config.schedule.keep)


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Of those that have one."""
    return [value.grad for value in parameters if value.grad is not None]


def in_bfloat16(config: Config, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16; ``auto`` does so where the hardware is fast at it."""
    if config.precision == "auto":
        return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return config.precision == "bfloat16"
