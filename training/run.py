"""A training run from its configuration to its folder, and the folder opened again."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from api_schemas.config import Config, ModelConfig
from api_schemas.errors import ConfigError, InputError
from api_schemas.files import remove_temporaries, write_atomically
from decision.embedding_files import read_embeddings, save_embeddings
from decision.embeddings import EmbeddingSet
from decision.progress import Track, silent
from encoder.preprocessing import PREPROCESSING_FILE, Preprocessing
from training.backbones.hub import keep_shape, without_weights
from training.batch_norm import joined_batch_norms
from training.checkpoint import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    refuse_other_run,
    refusing_other_tensors,
)
from training.data.check import unmeasurable
from training.data.items import Items, Splits
from training.data.load import load_data
from training.embed import Prepare, embed
from training.health import within_limits
from training.heap import freed_memory_kept
from training.inputs import forms_of
from training.loop import Loop
from training.metrics import refuse_damaged_metrics
from training.neighbours import Neighbours
from training.network import Network, build_network
from training.objective import Objective
from training.processes import Processes, joined
from training.refuse import few_positives, refuse_impossible, refuse_oversized
from training.state import Progress, State
from training.validate import refuse_unmeasurable

ROWS_AT_ONCE = 8192
SUMMARY, EMBEDDINGS, BACKBONE = "run.json", "embeddings", "backbone"


@dataclass(frozen=True)
class Run:
    """A finished run's folder: ``config.yaml``, ``preprocessing.json``, ``run.json``, ``metrics.jsonl``,
    ``checkpoints/best.safetensors`` and ``embeddings/{train,validation,test}.npz``."""

    path: Path
    config: Config
    train_seconds: float
    best_epoch: int
    fingerprint: str | None = None  # of the data; runs of earlier versions have none

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run folder; raises InputError when it is none or its training did not finish."""
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder} is not a run folder: it has no {CONFIG}. Give the --out of `limen train`."
            )
        if not (folder / SUMMARY).is_file():
            raise InputError(
                f"{folder} holds a run that did not finish: go on with `limen train ... --resume`."
            )
        config = Config.load(folder / CONFIG)
        try:
            summary = json.loads((folder / SUMMARY).read_bytes())
            seconds, best = float(summary["train_seconds"]), int(summary["best_epoch"])
            return cls(folder, config, seconds, best, summary.get("fingerprint"))
        except (AttributeError, ValueError, LookupError, TypeError):
            raise InputError(
                f"{folder / SUMMARY} is damaged: `limen train ... --resume` writes it anew, without training."
            ) from None

    def embeddings(self, split: str) -> EmbeddingSet | None:
        """The embeddings of ``train``, ``validation`` or ``test``; None when the run has no such items."""
        path = self.path / EMBEDDINGS / f"{split}.npz"
        return read_embeddings(path) if path.is_file() else None

    def refuse_other_data(self, splits: Splits) -> None:
        """Raises InputError when these are not the items that the run was trained on and measured with."""
        if self.fingerprint is None:  # an earlier version left the ids alone
            same = all(self._has_ids_of(name, items) for name, items in splits.parts().items())
        else:
            same = self.fingerprint == _fingerprint(splits, self.config.evaluation.exclude_same)
        if not same:
            raise InputError(
                f"{self.path}: the data is not what this run was trained on: bring that back, or train anew."
            )

    def _has_ids_of(self, split: str, items: Items) -> bool:
        stored = self.embeddings(split)
        return stored is not None and np.array_equal(stored.ids, items.ids)

    def preprocessing(self) -> Preprocessing:
        """How raw input becomes the network's input."""
        return Preprocessing.load(self.path / PREPROCESSING_FILE)

    def network(self) -> Network:
        """The best network, in evaluation mode, on the CPU."""
        network = _network(without_weights(self.config.model, self.path / BACKBONE), self.preprocessing())
        _load_best(network, self.path)
        return network.eval()

    def encoder_folder(self) -> Path:
        """The folder of the exported encoder; exported on first use, the same files from then on."""
        from training.export import export_encoder  # brings ONNX Runtime, and needs this module

        folder = self.path / "encoder"
        if not (folder / "encoder.onnx").is_file():
            export_encoder(self, folder)
        return folder


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


def _load_best(network: Network, folder: Path) -> None:
    path = folder / CHECKPOINTS / BEST
    weights = load_weights(path)
    with refusing_other_tensors(path):
        network.load_state_dict(weights)


def _network(model: ModelConfig, preprocessing: Preprocessing) -> Network:
    network = build_network(model, preprocessing)
    # torch's stubs do not know this argument; the layout is twice as fast on a CPU
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _fingerprint(splits: Splits, column: str | None) -> str:
    """Changes when an input or a label does, and behind its ``+`` when an id or a value of ``column`` does.

    Fast, not cryptographic.
    """
    sums, names = [], 0
    for items in splits.parts().values():
        inputs = 0
        for start in range(0, len(items), ROWS_AT_ONCE):
            rows = items.inputs[start : start + ROWS_AT_ONCE]
            inputs = zlib.crc32(np.ascontiguousarray(rows).data, inputs)
        sums += [inputs, _sum_of(items.labels)]
        names = _sum_of(items.ids, names)
        if column is not None and column in items.metadata:
            names = _sum_of(items.metadata[column], names)
    return f"{'-'.join(f'{value:08x}' for value in sums)}+{names:08x}"


def _sum_of(values: NDArray[Any], before: int = 0) -> int:
    return zlib.crc32("\0".join(map(str, values.tolist())).encode(errors="surrogatepass"), before)


def _place(progress: Progress) -> str:
    if progress.step >= progress.planned_steps:
        return f"Training was finished after epoch {progress.epoch}: only the embeddings are made again."
    return f"Going on in epoch {progress.epoch + 1}, after step {progress.step} of {progress.planned_steps}."


def _described(splits: Splits) -> str:
    return f"{splits.sizes()}; input {' x '.join(map(str, splits.preprocessing.shape))}."
