"""Features of a frozen backbone: computed once and kept on disk, so that a head trains in seconds."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from api_schemas.config import Config, ModelConfig
from api_schemas.data_config import AugmentationConfig
from api_schemas.preprocessing import PreprocessingDocument, VectorInput
from common.array_types import Float32s
from common.atomic_files import fsync_folder
from common.cache_folder import find_cache_folder
from common.progress import Say, Track, silent
from encoder.inputs.preprocessing import Preprocessing
from encoder.inputs.row_input import VectorPreprocessing
from training.batches.batch_inputs import DeviceInputs
from training.data.items import Items, Splits
from training.models.network import Network
from training.runtime.distributed import Processes

ROWS_AT_ONCE = 8192
MOST_AT_ONCE = 64  # items: more are no faster, and a large network shows its progress


def can_precompute(config: Config, network: Network) -> bool:
    """Whether each item has one vector of features throughout a run, which takes some time to compute."""
    level = config.mixup.parameters.get("level", "embedding") if config.mixup else "embedding"
    changes_inputs = config.data.augmentation != AugmentationConfig() or level != "embedding"
    draws_pieces = config.data.kind == "audio"  # another one of each recording in every step
    is_fixed = config.model.train == "head" and config.model.views == 1 and not draws_pieces
    computes = any(True for _ in network.backbone.parameters()) or not network.backbone.is_differentiable
    has_more = config.teacher is not None and config.teacher.data is not None
    return is_fixed and computes and not changes_inputs and not has_more


def precompute_features(
    network: Network, splits: Splits, config: Config, processes: Processes, track: Track, say: Say
) -> Splits:
    """The same parts with the pooled features of the network's backbone as inputs: float32 [n, size].

    They lie in the folder that ``LIMEN_CACHE`` names, ``~/.cache/limen`` unless set, under a hash of weights,
    preprocessing and inputs, and are mapped from there.
    """
    of_network = _hash_network(network, config.model, splits.preprocessing)
    prepare = DeviceInputs(splits.preprocessing, processes.device)
    parts: dict[str, Items] = {}
    for name, items in splits.get_parts().items():
        path = find_cache_folder("features") / f"{_hash_inputs(of_network, items)}.npy"
        (is_missing,) = processes.reduce_max(not path.is_file())
        if is_missing:
            size = config.evaluation.batch_size
            _write(path, compute_features(network, items, prepare, size, processes, track))
        else:
            say(f"Features of the {name} items are known already: {path}.")
        parts[name] = replace(items, inputs=np.load(path, mmap_mode="r", allow_pickle=False))
    rule = VectorPreprocessing(VectorInput(dim=parts["train"].inputs.shape[1]))
    return Splits(parts["train"], parts.get("validation"), parts.get("test"), rule, splits.teacher)


def compute_features(
    network: Network,
    items: Items,
    prepare: DeviceInputs,
    batch_size: int,
    processes: Processes | None = None,
    track: Track = silent,
) -> Float32s:
    """Pooled features of the items by a network as it is, in evaluation mode: float32 [n, size].

    Args:
        processes: all of them must call; each computes its shard, and all get the whole.
    """
    was_training, size = network.training, min(batch_size, MOST_AT_ONCE)
    network.eval()
    rows = np.arange(len(items))
    shard = processes.select_shard(rows) if processes else rows
    starts: Iterable[int] = range(0, len(shard), size)
    parts = []
    with torch.inference_mode():
        for start in track(starts, "features", math.ceil(len(shard) / size)):
            inputs = prepare(items.inputs[shard[start : start + size]])
            parts.append(_pool_features(network, inputs).float().cpu().numpy())
    network.train(was_training)
    own = np.concatenate(parts)
    return processes.gather_rows(own) if processes else own


def _pool_features(network: Network, inputs: Tensor) -> Tensor:
    """One row of features of each input; of one in pieces the mean of theirs."""
    if inputs.ndim < 5:
        return network.pool(network.extract_features(inputs))
    rows, positions = (~inputs[:, :, 0, 0, 0].isnan()).nonzero(as_tuple=True)
    pieces = network.pool(network.extract_features(inputs[rows, positions]))
    sums = pieces.new_zeros(len(inputs), pieces.shape[1]).index_add(0, rows, pieces)
    return sums / torch.bincount(rows, minlength=len(inputs))[:, None]


def _hash_network(network: Network, model: ModelConfig, preprocessing: Preprocessing) -> bytes:
    """Of all that decides an item's features but the item."""
    total = hashlib.sha256(PreprocessingDocument(input=preprocessing.rule).model_dump_json().encode())
    own = json.dumps(model.parameters, sort_keys=True)
    total.update(f"{torch.__version__} {network.pooling} {own} {network.backbone.describe()}".encode())
    for name, value in network.backbone.state_dict().items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return total.digest()


def _hash_inputs(of_network: bytes, items: Items) -> str:
    total = hashlib.sha256(of_network)
    total.update(f"{len(items)} {items.inputs[:1].dtype} {items.inputs[:1].shape}".encode())
    for start in range(0, len(items), ROWS_AT_ONCE):
        total.update(np.ascontiguousarray(items.inputs[start : start + ROWS_AT_ONCE]).data)
    return total.hexdigest()


def _write(path: Path, features: Float32s) -> None:
    """Whole or not at all, without a second copy in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, features, allow_pickle=False)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
