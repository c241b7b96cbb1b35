"""A training run, from its configuration to its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from api_schemas.class_corners import CLASS_CORNERS_FILE
from api_schemas.config import Config
from api_schemas.manifest import CONFIG_FILE, PREPROCESSING_FILE
from common.atomic_files import remove_temporaries, write_atomically
from common.errors import ConfigError, InputError
from common.progress import Track, silent
from embeddings.files import save_embeddings
from encoder.inputs.preprocessing import Preprocessing
from training.batches.batch_inputs import DeviceInputs, TrainingInputs, count_forms
from training.batches.class_neighbours import ClassNeighbours
from training.batches.frozen_features import can_precompute, compute_features, precompute_features
from training.batches.mined_batches import MinedTriplets
from training.config_checks import check_batches, check_config, describe_few_positives
from training.data.check_data import list_unmeasurable, plan_points
from training.data.items import Splits
from training.data.load_data import load_data
from training.data.teacher import embed_by_teacher, load_teacher_features, load_unlabelled
from training.loop.checkpoint import check_same_run, find_latest_checkpoint, load_checkpoint
from training.loop.class_shards import load_class_shards
from training.loop.embed_split import embed_forms, embed_items
from training.loop.epoch_log import check_epoch_log
from training.loop.failure_checks import explain_exhausted_resources
from training.loop.item_margins import build_item_margins
from training.loop.loop import Loop, Say
from training.loop.mine_again import read_mined_rows
from training.loop.start_from import (
    adopt_model,
    load_network,
    open_start,
    read_given_preprocessing,
    start_class_vectors,
)
from training.loop.train_state import Progress, TrainState
from training.loop.validation_metrics import check_measurable
from training.losses import LOSSES
from training.models.backbones.reopen import drop_pretrained
from training.models.head_start import HEAD_STARTS
from training.models.network import Network, build_network
from training.models.sync_batch_norm import synchronise_batch_norms
from training.models.trained_parts import select_trained_parts
from training.objective.objective import Objective
from training.objective.training_classes import describe_classes
from training.run_folder import layout
from training.run_folder.run_folder import Run, compute_fingerprint, load_best_weights
from training.runtime.distributed import Processes, join_processes
from training.runtime.malloc_tuning import keep_freed_memory

MOST_SAMPLED = 20_000  # items whose features the head begins from


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
    if (out / CONFIG_FILE).exists() and not resume:
        raise InputError(f"{out} already holds a run: add --resume to go on with it, or give another --out.")
    if resume and not (out / CONFIG_FILE).exists():
        raise InputError(f"{out} holds no run to go on with: leave --resume out to start one there.")
    _check_writable(out)
    start = None if config.start_from is None else open_start(config.start_from)
    if start is not None:
        config = adopt_model(config, start)
    check_config(config)
    with join_processes() as device, explain_exhausted_resources(out), keep_freed_memory():
        return _train(config, start, out, resume, track, say, Processes(device))


def _train(
    config: Config,
    start: Run | None,
    out: Path,
    resume: bool,
    track: Track,
    say: Say,
    processes: Processes,
) -> Run:
    if processes.count > 1 and config.mixup and config.mixup.parameters.get("level") in ("input", "feature"):
        raise ConfigError(
            "mixup.level: with several processes only embeddings are mixed: leave level out or train in one."
        )
    if processes.count > 1 and config.model.towers > 1:
        raise ConfigError("model.towers: two towers are trained in one process: leave torchrun out.")
    if not processes.is_first:
        track, say = silent, lambda _: None
    torch.manual_seed(config.seed)

    splits = load_splits(config, start, track, say)
    preprocessing = splits.preprocessing
    fingerprint = compute_fingerprint(splits, config.evaluation.exclude_same, track)

    latest = find_latest_checkpoint(out / layout.CHECKPOINTS_FOLDER) if resume else None
    network = _build_network(config, preprocessing, start, latest, out).to(processes.device)
    if can_precompute(config, network):
        splits = precompute_features(network, splits, config, processes, track, say)
        for tower in network.towers:
            tower.takes_features = True
    is_new = start is None and latest is None
    if is_new and config.model.head_start != "random":
        _start_head(network, splits, config, processes, track)
    evaluated = deepcopy(network)
    state = build_state(config, splits, network, processes, say)
    objective, margins = state.objective, state.margins

    processes.wait()  # all have read what is in the folder
    (out / layout.CHECKPOINTS_FOLDER).mkdir(parents=True, exist_ok=True)
    if latest:
        checkpoint = load_checkpoint(latest)
        check_same_run(checkpoint, config, fingerprint, latest)
        with layout.explain_foreign_tensors(latest):
            state.load_tensors(checkpoint.tensors)
        load_class_shards(latest, state.collect_class_shards())
        state.progress = checkpoint.progress
        say(_describe_resumption(state.progress))
    processes.check_same_state(f"step {state.progress.step} with the data {fingerprint}")
    if resume:
        check_epoch_log(out)
    if processes.is_first:
        if resume:
            for folder in (out, out / layout.CHECKPOINTS_FOLDER, out / layout.EMBEDDINGS_FOLDER):
                remove_temporaries(folder)
        config.save(out / CONFIG_FILE)
        if corners := objective.get_class_corners():
            corners.save(out / CLASS_CORNERS_FILE)
        preprocessing.save(out / PREPROCESSING_FILE)
        evaluated.backbone.save_shape(out / layout.BACKBONE_FOLDER)
    if start is not None and latest is None:
        _begin_from(start, config, out, splits, evaluated, objective, processes, track, say)

    Loop(config, splits, state, evaluated, out, fingerprint, processes, track, say).fit()

    processes.wait()  # the best weights are on disk
    load_best_weights(evaluated, out)
    _embed_parts(config, out, splits, evaluated, processes, track)
    if processes.is_first:
        if config.teacher is not None:
            _embed_measured_by_teacher(config, out, splits, track, say)
        if margins:
            layout.save_item_margins(out, margins.compute_means())
        _write_summary(out, state.progress, fingerprint)
    processes.wait()
    return Run.open(out)


def build_state(
    config: Config, splits: Splits, network: Network, processes: Processes, say: Say
) -> TrainState:
    """What changes while a network trains, before its first step; freezes what is not trained."""
    select_trained_parts(network, config.model)
    if processes.count > 1:
        synchronise_batch_norms(network)
    forms = count_forms(config.data.augmentation)
    classes = describe_classes(
        splits.train, config.data, forms, splits.teacher, config.sampler.ignores_labels
    )
    objective = Objective(config, classes).to(processes.device)
    for sentence in objective.describe_classes():
        say(sentence)
    neighbours = None
    if config.sampler.neighbours:
        neighbours = ClassNeighbours(classes.count, config.model.view_dim).to(processes.device)
    mined = None
    if config.mining:
        mined = MinedTriplets(len(splits.train) * forms, config.mining.negatives)
        if config.mining.file is not None:
            mined.set_rows(*read_mined_rows(config.mining, splits.train, forms))
    margins = None
    if not config.sampler.ignores_labels and config.data.role_column is None:
        margins = build_item_margins(len(splits.train), classes.count, config.model.view_dim)
        margins = margins and margins.to(processes.device)
    return TrainState(network, objective, config.optimizer, neighbours, mined, margins)


def _build_network(
    config: Config, preprocessing: Preprocessing, start: Run | None, latest: Path | None, out: Path
) -> Network:
    """The network before it learns: of the run to start from, or from the configuration's own weights; to be
    loaded from the latest checkpoint where there is one."""
    if latest is not None:
        return build_network(drop_pretrained(config.model, out / layout.BACKBONE_FOLDER), preprocessing)
    return build_start_network(config, preprocessing, start)


def build_start_network(config: Config, preprocessing: Preprocessing, start: Run | None) -> Network:
    """The network before it learns: of the run to start from, or from the configuration's own weights."""
    return build_network(config.model, preprocessing) if start is None else load_network(config, start)


def _start_head(network: Network, splits: Splits, config: Config, processes: Processes, track: Track) -> None:
    """The head where ``model.head_start`` says, by the training items' features, a sample of many."""
    rows = np.random.default_rng(config.seed).permutation(len(splits.train))[:MOST_SAMPLED]
    prepare = DeviceInputs(splits.preprocessing, processes.device)
    sample, size = splits.train.subset(np.sort(rows)), config.evaluation.batch_size
    features = compute_features(network, sample, prepare, size, track=track)
    _, codes = np.unique(sample.labels, return_inverse=True)
    if isinstance(network.head, nn.Linear):  # the identity backbone has none
        HEAD_STARTS[config.model.head_start](network.head, features, codes, config.model.head_shrinkage)
        for tower in network.towers[1:]:
            tower.head.load_state_dict(network.head.state_dict())


def _begin_from(
    start: Run,
    config: Config,
    out: Path,
    splits: Splits,
    network: Network,
    objective: Objective,
    processes: Processes,
    track: Track,
    say: Say,
) -> None:
    """Class vectors of the run to start from, and its embeddings of what is measured, to compare with."""
    prepare, size = DeviceInputs(splits.preprocessing, processes.device), config.evaluation.batch_size
    inputs = TrainingInputs(
        splits.train, prepare, config.data.augmentation, ignores_labels=config.sampler.ignores_labels
    )
    vectors = embed_forms(network, inputs, config, track, processes)
    for sentence in start_class_vectors(objective, start, vectors, torch.from_numpy(inputs.codes)):
        say(sentence)
    measured = splits.test or splits.validation
    if measured is not None:
        embedded = embed_items(network, measured, prepare, size, track, processes)
        if processes.is_first:
            (out / layout.EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
            save_embeddings(embedded, layout.get_before_path(out))


def load_splits(config: Config, start: Run | None, track: Track, say: Say) -> Splits:
    """The prepared items; warns of what is doubtful about them."""
    forms = count_forms(config.data.augmentation)
    splits = load_data(
        config.data,
        track,
        say,
        lambda labels: check_batches(config, labels, forms),
        read_given_preprocessing(config, start),
    )
    say(f"{splits.describe_sizes()}; input {splits.preprocessing.describe_shape()}.")
    for sentence in plan_points(splits):
        say(sentence)
    for doubt in list_unmeasurable(splits, config.data):
        say(f"Warning: {doubt}")
    if splits.validation is not None:
        check_measurable(splits.validation, config.evaluation, config.data.role_column)
    _, codes = np.unique(splits.train.labels, return_inverse=True)
    if warning := describe_few_positives(config, codes):
        say(warning)
    if config.teacher is None:
        return splits
    teacher = load_teacher_features(config.teacher, config.data, splits.train, track)
    sized = [spec.name for spec in config.loss if not LOSSES[spec.name].takes_any_size]
    sized = [name for name in sized if LOSSES[name].follows_teacher]
    if sized and teacher.shape[1] != config.model.view_dim:
        raise ConfigError(
            f"teacher: its features have {teacher.shape[1]} numbers, an embedding, which {sized[0]} "
            f"compares, has {config.model.view_dim}: set model.embedding_dim to "
            f"{teacher.shape[1] * config.model.views}."
        )
    unlabelled = None
    if config.teacher.data is not None:
        unlabelled = load_unlabelled(config.teacher, config.data, splits.preprocessing, track)
        if unlabelled.features.shape[1] != teacher.shape[1]:
            raise ConfigError(
                f"teacher.data: its features have {unlabelled.features.shape[1]} numbers, those of the "
                f"training items {teacher.shape[1]}: both must be the same teacher's."
            )
        say(f"The teacher's own data: {len(unlabelled.items)} items, without their labels.")
    return replace(splits, teacher=teacher, unlabelled=unlabelled)


def _embed_parts(
    config: Config, out: Path, splits: Splits, network: Network, processes: Processes, track: Track
) -> None:
    """Write the embeddings of every part; each process embeds its shard, the first writes."""
    (out / layout.EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
    prepare = DeviceInputs(splits.preprocessing, processes.device)
    for name, items in splits.get_parts().items():
        embedded = embed_items(network, items, prepare, config.evaluation.batch_size, track, processes)
        if processes.is_first:
            save_embeddings(embedded, layout.get_embeddings_path(out, name))


def _embed_measured_by_teacher(config: Config, out: Path, splits: Splits, track: Track, say: Say) -> None:
    """The teacher's embeddings of what is measured, to be compared with the student's."""
    measured = splits.test or splits.validation
    if config.teacher is None or measured is None:
        return
    paths = (config.data.test_paths or None) if splits.test is not None else None
    try:
        embedded = embed_by_teacher(config.teacher, config.data, measured, track, paths)
    except InputError as error:
        say(f"The teacher is not compared with: {error}")
        return
    save_embeddings(embedded, layout.get_teacher_path(out))


def _write_summary(out: Path, progress: Progress, fingerprint: str) -> None:
    """Write the summary that marks a run as finished."""
    summary = {
        "train_seconds": progress.seconds,
        "best_epoch": progress.best_epoch or progress.epoch,
        "fingerprint": fingerprint,
    }
    write_atomically(out / layout.SUMMARY_FILE, (json.dumps(summary, indent=2) + "\n").encode())


def _check_writable(out: Path) -> None:
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"{nearest} is no folder that can be written in: give another --out.")


def _describe_resumption(progress: Progress) -> str:
    if progress.step >= progress.planned_steps:
        return f"Training was finished after epoch {progress.epoch}: only the embeddings are made again."
    return f"Going on in epoch {progress.epoch + 1}, after step {progress.step} of {progress.planned_steps}."
