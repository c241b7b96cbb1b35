"""A training run from its configuration to its folder, and the folder opened again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from api_schemas.config import Config
from common.atomic_files import remove_temporaries, write_atomically
from common.errors import ConfigError, InputError
from common.progress import Track, silent
from embeddings.files import save_embeddings
from encoder.preprocessing import PREPROCESSING_FILE
from training.batches.batch_inputs import forms_of
from training.batches.class_neighbours import Neighbours
from training.batches.prepare import Prepare
from training.config_checks import few_positives, refuse_impossible, refuse_oversized
from training.data.check_data import unmeasurable
from training.data.items import Splits
from training.data.load_data import load_data
from training.loop.checkpoint import latest_checkpoint, load_checkpoint, refuse_other_run
from training.loop.embed_split import embed
from training.loop.epoch_log import refuse_damaged_metrics
from training.loop.failure_checks import within_limits
from training.loop.loop import Loop
from training.loop.train_state import Progress, State
from training.loop.validation_metrics import refuse_unmeasurable
from training.models.backbones.hub import keep_shape, without_weights
from training.models.network import Network
from training.models.sync_batch_norm import joined_batch_norms
from training.objective.objective import Objective
from training.run_folder.run_folder import Run, _fingerprint, _load_best, _network
from training.run_folder.run_layout import (
    BACKBONE,
    CHECKPOINTS,
    CONFIG,
    EMBEDDINGS,
    SUMMARY,
    refusing_other_tensors,
)
from training.runtime.distributed import Processes, joined
from training.runtime.malloc_tuning import freed_memory_kept


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    track: Track = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Fit a network and write a run folder.

    Args:
        resume: go on from the latest checkpoint in ``out``; bit for bit what an uninterrupted run
            would have given, on one CPU with the same number of threads.

    Raises:
        InputError: data that cannot be used, a folder that already holds a run, a stopped run.
        ConfigError: a name or parameter that does not exist, or parts that cannot work together.
    """
    if (out / CONFIG).exists() and not resume:
        raise InputError(f"{out} already holds a run: add --resume to go on with it, or give another --out.")
    if resume and not (out / CONFIG).exists():
        raise InputError(f"{out} holds no run to go on with: leave --resume out to start one there.")
    _refuse_other_than_folder(out)
    refuse_impossible(config)
    with joined() as device, within_limits(out), freed_memory_kept():
        return _train(config, out, resume, track, say, device)


def _train(
    config: Config, out: Path, resume: bool, track: Track, say: Callable[[str], None], device: torch.device
) -> Run:
    processes = Processes(device)
    if processes.count > 1 and config.mixup and config.mixup.parameters.get("level") in ("input", "feature"):
        raise ConfigError(
            "mixup.level: with several processes only embeddings are mixed: leave level out or train in one."
        )
    if not processes.first:
        track, say = silent, lambda _: None
    torch.manual_seed(config.seed)
    forms = forms_of(config.data.augmentation)
    splits = load_data(config.data, track, say, lambda labels: refuse_oversized(config, labels, forms))
    say(_described(splits))
    for doubt in unmeasurable(splits, config.data):
        say(f"Warning: {doubt}")
    if splits.validation is not None:
        refuse_unmeasurable(splits.validation, config.evaluation)
    _, codes = np.unique(splits.train.labels, return_inverse=True)
    if warning := few_positives(config, codes):
        say(warning)
    latest = latest_checkpoint(out / CHECKPOINTS) if resume else None
    model = without_weights(config.model, out / BACKBONE) if latest else config.model
    network = _network(model, splits.preprocessing).to(device)
    evaluated = deepcopy(network)
    if processes.count > 1:
        joined_batch_norms(network)
    classes = splits.train.n_classes * forms
    objective = Objective(config, classes).to(device)
    hard = Neighbours(classes, config.model.view_dim).to(device) if config.sampler.neighbours else None
    state = State(network, objective, config.optimizer, hard)
    processes.wait()  # all have looked at what lies in the folder
    (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(splits, config.evaluation.exclude_same)
    if latest:
        found = load_checkpoint(latest)
        refuse_other_run(found, config, fingerprint, latest)
        with refusing_other_tensors(latest):
            state.load_tensors(found.tensors)
        state.progress = found.progress
        say(_place(found.progress))
    processes.refuse_differences(f"step {state.progress.step} with the data {fingerprint}")
    if resume:
        refuse_damaged_metrics(out)
    if processes.first:
        if resume:
            for folder in (out, out / CHECKPOINTS, out / EMBEDDINGS):
                remove_temporaries(folder)
        config.save(out / CONFIG)
        splits.preprocessing.save(out / PREPROCESSING_FILE)
        keep_shape(network.backbone, out / BACKBONE)
    Loop(config, splits, state, evaluated, out, fingerprint, device, track, say).fit()
    processes.wait()  # the best weights are on disk
    _finish(config, out, splits, fingerprint, evaluated, state, processes, track)
    processes.wait()
    return Run.open(out)


def _finish(
    config: Config,
    out: Path,
    splits: Splits,
    fingerprint: str,
    evaluated: Network,
    state: State,
    processes: Processes,
    track: Track,
) -> None:
    """Embed every part with the best network and write the summary that marks a run as finished."""
    _load_best(evaluated, out)
    (out / EMBEDDINGS).mkdir(exist_ok=True)
    prepare = Prepare(splits.preprocessing, processes.device)
    for name, items in splits.parts().items():
        embedded = embed(evaluated, items, prepare, config.evaluation.batch_size, track, processes)
        if processes.first:
            save_embeddings(embedded, out / EMBEDDINGS / f"{name}.npz")
    if not processes.first:
        return
    progress = state.progress
    summary = {
        "train_seconds": progress.seconds,
        "best_epoch": progress.best_epoch or progress.epoch,
        "fingerprint": fingerprint,
    }
    write_atomically(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def _refuse_other_than_folder(out: Path) -> None:
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"{nearest} is no folder that can be written in: give another --out.")


def _place(progress: Progress) -> str:
    if progress.step >= progress.planned_steps:
        return f"Training was finished after epoch {progress.epoch}: only the embeddings are made again."
    return f"Going on in epoch {progress.epoch + 1}, after step {progress.step} of {progress.planned_steps}."


def _described(splits: Splits) -> str:
    return f"{splits.sizes()}; input {' x '.join(map(str, splits.preprocessing.shape))}."
