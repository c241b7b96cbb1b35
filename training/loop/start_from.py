"""Training that starts from an earlier run: its network, its class vectors by name, a fresh optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from api_schemas.config import DEFAULT_BACKBONES, Config, LossConfig
from api_schemas.manifest import MANIFEST_FILE, PREPROCESSING_FILE
from common.errors import ConfigError, InputError
from encoder.inputs import load_preprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.batches.batch_inputs import count_forms
from training.loop.checkpoint import find_latest_checkpoint, load_checkpoint
from training.losses import Loss, start_from_class_means
from training.losses.d_simplex import DSimplex
from training.models.backbones.onnx_network import ONNX, check_encoder_folder
from training.models.backbones.reopen import drop_pretrained
from training.models.network import Network, build_network
from training.objective.objective import Objective
from training.objective.training_classes import name_classes
from training.run_folder import layout
from training.run_folder.run_folder import Run

HOW = frozenset(("train", "last_n", "lora"))  # keys of the model that say how it is trained


def open_start(source: str) -> Run:
    """The run to start from: its folder, or a checkpoint in it; raises InputError for anything else."""
    path = Path(source)
    if (path / MANIFEST_FILE).is_file():
        raise InputError(
            f"--from {path}: a bundle has the exported network alone, which cannot be trained: give the run "
            "folder that it was exported from."
        )
    if path.is_file() and path.parent.name == layout.CHECKPOINTS_FOLDER:
        path = path.parent.parent
    return Run.open(path)


def adopt_model(config: Config, run: Run) -> Config:
    """The configuration with the run's network, and its own word on how that is trained; fixed class vectors
    keep their corners."""
    model = config.model
    given = {name: getattr(model, name) for name in model.model_fields_set} | model.parameters
    if model.backbone == DEFAULT_BACKBONES.get(config.data.kind, "conv4"):
        given.pop("backbone", None)
    dropped = {"weights", "head_start"} | (HOW if HOW & given.keys() else set())
    kept = {name: value for name, value in run.config.model.model_dump().items() if name not in dropped}
    losses = [_keep_corners(spec, run) for spec in config.loss]
    changes = {"model": {**kept, **given}, "loss": [spec.model_dump() for spec in losses]}
    return Config.model_validate(config.model_dump() | changes)


def read_given_preprocessing(config: Config, run: Run | None) -> Preprocessing | None:
    """That of the network which is there already, a run's or a wrapped one; None where it is fitted to the
    data."""
    if run is not None:
        return run.load_preprocessing()
    if config.model.backbone.startswith(ONNX):
        source = config.model.backbone.removeprefix(ONNX)
        check_encoder_folder(source)
        return load_preprocessing(Path(source) / PREPROCESSING_FILE)
    return None


def load_network(config: Config, run: Run) -> Network:
    """The run's best network; raises ConfigError where the configuration wants another."""
    model = drop_pretrained(config.model, run.path / layout.BACKBONE_FOLDER)
    network = build_network(model, run.load_preprocessing())
    weights = layout.load_weights(layout.get_best_path(run.path))
    own = network.state_dict()
    misfits = [name for name in {**own, **weights} if name not in own or name not in weights]
    misfits += [name for name, value in own.items() if name in weights and value.shape != weights[name].shape]
    if misfits:
        raise ConfigError(
            f"model: the network of {run.path} is another, in {len(misfits)} of its tensors ({misfits[0]}): "
            "leave model out of the configuration, which then has that of the run."
        )
    network.load_state_dict(weights)
    return network


def start_class_vectors(objective: Objective, run: Run, embeddings: Tensor, labels: Tensor) -> list[str]:
    """Class vectors of the losses: the run's where it knows the class, else the mean of the class's items.

    Args:
        embeddings: float [n, d] of the training items, by the run's network. labels: int [n], class codes.

    Returns:
        A sentence for each loss that has class vectors.
    """
    latest = find_latest_checkpoint(run.path / layout.CHECKPOINTS_FOLDER)
    stored = {} if latest is None else load_checkpoint(latest).tensors
    items = run.load_embeddings("train")
    forms = count_forms(run.config.data.augmentation)
    known = [] if items is None else list(name_classes(np.unique(items.labels), forms))
    sentences = []
    for name, loss in objective.named_modules():
        if not (isinstance(loss, Loss) and loss.vectors):
            continue
        start_from_class_means(loss, embeddings, labels)
        vectors, prefix = loss.class_vectors, f"objective/{name}."
        own = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
        earlier = loss.read_class_vectors(own)
        shared = _find_shared(objective.class_names, known)
        if earlier is None or earlier.shape != (len(known), vectors.shape[1]):
            shared = []
        else:
            rows, sources = [row for row, _ in shared], [source for _, source in shared]
            if rows:
                length = earlier[sources].norm(dim=1).median().to(vectors)
                loss.set_class_vectors(torch.arange(len(vectors)), vectors.detach() * length)
                loss.set_class_vectors(torch.tensor(rows), earlier[sources])
        sentences.append(
            f"{loss.name}: {len(shared)} class vectors of {run.path}, {len(vectors) - len(shared)} from the "
            "means of their items."
        )
    return sentences


def _find_shared(names: Sequence[str], known: Sequence[str]) -> list[tuple[int, int]]:
    """Rows of classes in ``names`` and in ``known``."""
    row_of = {name: row for row, name in enumerate(known)}
    return [(row, row_of[name]) for row, name in enumerate(names) if name in row_of]


def _keep_corners(spec: LossConfig, run: Run) -> LossConfig:
    if spec.name != DSimplex.name or "corners_from" in spec.parameters or run.load_class_corners() is None:
        return spec
    return spec.model_copy(update={"corners_from": str(run.path)})
