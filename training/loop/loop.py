"""The training loop, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from api_schemas.config import Config
from api_schemas.operating_point import MATCH_PROBABILITY_FILE
from common.array_types import RowIndices
from common.progress import Track
from embeddings.embedding_set import EmbeddingSet
from training.batches.batch_feed import Batch, BatchFeed
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.batches.role_batches import draw_role_batches
from training.batches.samplers import draw_batches
from training.data.items import Splits
from training.loop.budget import Budget
from training.loop.checkpoint import remove_old_checkpoints, save_checkpoint
from training.loop.class_shards import save_class_shards
from training.loop.embed_split import embed_forms, embed_items
from training.loop.epoch_log import EpochLog, format_epoch
from training.loop.failure_checks import check_finite_gradients, check_finite_loss, detect_collapse
from training.loop.gradients import Gradients, climb, keep_buffers, return_to
from training.loop.mine_again import mine_again
from training.loop.train_state import TrainState
from training.loop.validation_metrics import ValidationMetrics, compute_validation_metrics
from training.models.network import Network
from training.optim.optimizer import compute_lr_factor
from training.run_folder import layout
from training.runtime.device import HostCopy
from training.runtime.distributed import Processes
from training.runtime.stop_signals import StopSignals

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
        state: TrainState,
        evaluated: Network,
        folder: Path,
        fingerprint: str,
        processes: Processes,
        track: Track,
        say: Say,
    ) -> None:
        self.config, self.splits, self.state, self.evaluated = config, splits, state, evaluated
        self.folder, self.fingerprint, self.processes = folder, fingerprint, processes
        self.track, self.say = track, say
        self.prepare = DeviceInputs(splits.preprocessing, processes.device)
        self.inputs = TrainingInputs(
            splits.train,
            self.prepare,
            config.data.augmentation,
            splits.teacher,
            config.sampler.ignores_labels,
        )
        batch_size = min(config.sampler.batch_size, len(self.inputs.codes))
        self.steps = config.schedule.steps_per_epoch or max(1, len(splits.train) // batch_size)
        self.budget = Budget(config, self.steps)
        self.unlabelled = None
        if splits.unlabelled is not None:
            items, features = splits.unlabelled.items, splits.unlabelled.features
            self.unlabelled = TrainingInputs(items, self.prepare, config.data.augmentation, features)
        self.gradients = Gradients(config, state, processes, self.inputs.forms)

    def fit(self) -> None:
        """Train until the schedule, the patience or the time ends; leaves checkpoints and metrics.

        Raises:
            InputError: the loss is no longer a number, the disk is full, or a signal stopped it; the
                last good checkpoint is kept.
        """
        state, progress, processes = self.state, self.state.progress, self.processes
        self.budget.plan_run(progress)
        began = time.monotonic() - progress.seconds
        if progress.step == 0 and state.objective.from_means and self.config.start_from is None:
            self._start_class_vectors()
        with StopSignals() as stop_signals, EpochLog(self.folder) as epoch_log:
            while progress.step < progress.planned_steps:
                plan = self.plan_epoch()
                todo = plan[progress.step_in_epoch :][: progress.planned_steps - progress.step]
                feed = BatchFeed(todo, progress.step, self.config, self.inputs, processes, self.unlabelled)
                state.network.train()
                started, n_seen = time.monotonic(), 0
                bar = self.track(todo, f"epoch {progress.epoch + 1}", len(todo))
                for rows in bar:
                    progress.add_step(self.take_step(feed))
                    state.update_average()
                    n_seen += len(rows)
                    speed = n_seen / max(time.monotonic() - started, 1e-9)
                    if hasattr(bar, "set_postfix_str"):  # a progress bar that shows more than its position
                        bar.set_postfix_str(
                            f"loss {progress.mean_loss:.4f}, {speed:.0f} items/s", refresh=False
                        )
                    is_stopped, progress.seconds = processes.reduce_max(
                        bool(stop_signals.received), time.monotonic() - began
                    )
                    if is_stopped and progress.step_in_epoch < len(plan):
                        self._save_class_shards()
                        self._save()
                        raise stop_signals.build_error(progress.step)
                    if sentence := self.budget.end_if_time_is_over(progress):
                        self.say(sentence)
                        break
                progress.finish_epoch()
                self.splits.check_unchanged()
                embedded = self._embed_validation()
                self._save_class_shards()
                if processes.is_first:
                    self._end_epoch(embedded, epoch_log, began, speed)
                progress.update_from_json(processes.broadcast_text(progress.to_json()))
                (is_stopped,) = processes.reduce_max(bool(stop_signals.received))
                if is_stopped and progress.step < progress.planned_steps:
                    raise stop_signals.build_error(progress.step)

    def _start_class_vectors(self) -> None:
        """Class vectors at the mean embedding that the fresh network gives each class and form."""
        vectors = embed_forms(self.state.network, self.inputs, self.config, self.track, self.processes)
        self.state.objective.start_class_vectors(vectors, torch.from_numpy(self.inputs.codes))

    def plan_epoch(self) -> list[RowIndices]:
        """The rows of each batch of the epoch, which follow from seed and epoch; hard where classes meet."""
        progress, neighbours, sampler = self.state.progress, self.state.neighbours, self.config.sampler
        if self.state.mined is not None:
            self._mine_when_due()
            size = min(sampler.batch_size, len(self.inputs.codes))
            return self.state.mined.draw_batches(size, self.steps, self.config.seed, progress.epoch)
        if self.inputs.is_query is not None:
            return draw_role_batches(
                self.inputs.codes,
                self.inputs.is_query,
                min(sampler.batch_size, len(self.inputs.codes)),
                sampler.items_per_class,
                self.steps,
                self.config.seed,
                progress.epoch,
            )
        nearest = None
        if neighbours is not None:
            done = progress.step / progress.planned_steps
            if progress.step_in_epoch == 0 and done >= sampler.neighbours_from:
                neighbours.begin_epoch()
            nearest = neighbours.find_nearest(sampler.neighbours)
        return draw_batches(self.inputs.codes, sampler, self.steps, self.config.seed, progress.epoch, nearest)

    def _mine_when_due(self) -> None:
        """Mine by the network as it is, at the beginning of an epoch."""
        every, progress = self.config.mining and self.config.mining.every, self.state.progress
        if every and progress.step_in_epoch == 0 and progress.epoch % every == 0:
            vectors = embed_forms(self.state.network, self.inputs, self.config, self.track, self.processes)
            for sentence in mine_again(self.state, self.config, vectors, self.inputs.codes, self.track):
                self.say(sentence)

    def take_step(self, feed: BatchFeed) -> float:
        """One update of the weights, from as many micro-batches as gradients accumulate over; its loss.

        Every random draw follows from seed and step.
        """
        state, optimizer, config = self.state, self.state.optimizer, self.config
        done = state.progress.step / state.progress.planned_steps
        factor = compute_lr_factor(state.progress.step, state.progress.planned_steps, config.schedule)
        for group, rate in zip(optimizer.param_groups, state.base_rates, strict=True):
            group["lr"] = rate * factor
        if config.optimizer.sam is None:
            upcoming = (feed.next() for _ in range(config.optimizer.accumulate))
            total = self._add_gradients(upcoming, done, feed)
        else:
            batches = [feed.next() for _ in range(config.optimizer.accumulate)]
            before = self._climb(batches, done, config.optimizer.sam)
            total = self._add_gradients(batches, done)
            return_to(before)
        gradients = [
            [value.grad for value in group["params"] if value.grad is not None]
            for group in optimizer.param_groups
        ]
        self.processes.average([gradient for group in gradients for gradient in group])
        norms = HostCopy(self._clip(gradients))
        optimizer.step()
        state.objective.end_step(factor)
        check_finite_gradients(norms.read().tolist(), state)
        optimizer.zero_grad(set_to_none=True)
        return total

    def _add_gradients(self, batches: Iterable[Batch], done: float, feed: BatchFeed | None = None) -> float:
        """Gradients of micro-batches, added up; their loss. The next one is built ahead meanwhile."""
        total = 0.0
        for batch in batches:
            loss = self.gradients.add(batch, done)
            if feed is not None:
                feed.prefetch()
            total += float(loss.read())
            check_finite_loss(total, self.state)
        return total

    def _climb(self, batches: Sequence[Batch], done: float, radius: float) -> list[tuple[Tensor, Tensor]]:
        """The weights at the highest loss nearby; what they were before. No other state changes."""
        state, optimizer = self.state, self.state.optimizer
        with keep_buffers(state.network, state.objective, state.neighbours, state.margins):
            self._add_gradients(batches, done)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.processes.average([weight.grad for weight in weights if weight.grad is not None])
        return climb(optimizer, radius)

    def _clip(self, gradients: list[list[Tensor]]) -> Tensor:
        """Shorten the network's gradient where it is too long; float [groups], how long each group's was."""
        groups, limit = self.state.optimizer.param_groups, self.config.optimizer.clip_norm
        norms = torch.stack([get_total_norm(group).to(self.processes.device) for group in gradients])
        of_network = [norm for norm, group in zip(norms, groups, strict=True) if group["name"] != "loss"]
        if limit and of_network:
            norm = torch.stack(of_network).norm()
            clip_grads_with_norm_(self.state.network.parameters(), limit, norm)
        return norms

    def _embed_validation(self) -> EmbeddingSet | None:
        """The validation items where this epoch measures them; each process embeds its shard."""
        progress, evaluation = self.state.progress, self.config.evaluation
        is_last = progress.step >= progress.planned_steps
        if self.splits.validation is None or not (is_last or progress.epoch % evaluation.every == 0):
            return None
        self.evaluated.load_state_dict(self.state.collect_served_weights())
        return embed_items(
            self.evaluated,
            self.splits.validation,
            self.prepare,
            evaluation.batch_size,
            processes=self.processes,
        )

    def _end_epoch(self, embedded: EmbeddingSet | None, log: EpochLog, began: float, speed: float) -> None:
        """Measure, write and say what the epoch gave, and decide how many more there will be."""
        progress = self.state.progress
        metrics = None if embedded is None else self._measure(embedded)
        is_best = self._keep_if_best(metrics)
        progress.seconds = time.monotonic() - began
        log.append(self.state, metrics, speed)
        decision = self.budget.update_after_epoch(progress)
        self.say(format_epoch(progress, metrics, speed, is_best))
        if decision:
            self.say(decision)
        self._save()

    def _measure(self, embedded: EmbeddingSet) -> ValidationMetrics:
        metrics = compute_validation_metrics(
            embedded, self.config.evaluation.exclude_same, self.config.data.role_column
        )
        if warning := detect_collapse(embedded, metrics, self.state.progress.losses, self.config):
            self.say(warning)
        return metrics

    def _keep_if_best(self, metrics: ValidationMetrics | None) -> bool:
        """Save the weights if validation says they are the best so far (always, without validation)."""
        progress = self.state.progress
        is_best = False
        if metrics is not None:
            value = metrics.compute_monitored_value(self.config.evaluation.monitor)
            is_best = progress.best is None or value > progress.best
            if is_best:
                progress.best, progress.best_epoch = value, progress.epoch
        if is_best or self.splits.validation is None:
            layout.save_weights(layout.get_best_path(self.folder), self.state.collect_served_weights())
            if (probability := self.state.objective.get_match_probability()) is not None:
                probability.save(self.folder / MATCH_PROBABILITY_FILE)
        return is_best

    def _save_class_shards(self) -> None:
        """Each process writes its own; they are all there before the checkpoint that they belong to is."""
        if shards := self.state.collect_class_shards():
            path = layout.get_step_path(self.folder, self.state.progress.step)
            save_class_shards(path, self.processes.rank, shards)
            self.processes.wait()

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        path = layout.get_step_path(self.folder, self.state.progress.step)
        save_checkpoint(path, self.state, self.config, self.fingerprint)
        remove_old_checkpoints(self.folder / layout.CHECKPOINTS_FOLDER, self.config.schedule.keep)
