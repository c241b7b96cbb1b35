"""A finished run's folder: its configuration, best network, embeddings and exported encoder."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.class_corners import CLASS_CORNERS_FILE, ClassCorners
from api_schemas.config import Config
from api_schemas.manifest import CONFIG_FILE, ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.operating_point import MATCH_PROBABILITY_FILE, Probability
from common.array_types import Float32s
from common.errors import InputError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet, check_single_values
from embeddings.files import read_embeddings
from embeddings.npy import read_array
from encoder.inputs import load_preprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.data.items import Items, Splits
from training.data.row_store import RowStore, read_blocks
from training.export.onnx_export import export_encoder
from training.models.backbones.reopen import drop_pretrained
from training.models.network import Network, build_network
from training.run_folder import layout

VALUES_AT_ONCE = 8_192
BYTES_AT_ONCE = 16 << 20  # of items that are read


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
        if not (folder / CONFIG_FILE).is_file():
            raise InputError(
                f"{folder} is not a run folder: it has no {CONFIG_FILE}. Give the --out of `limen train`."
            )
        if not (folder / layout.SUMMARY_FILE).is_file():
            raise InputError(
                f"{folder} holds a run that did not finish: go on with `limen train ... --resume`."
            )
        config = Config.load(folder / CONFIG_FILE)
        try:
            summary = json.loads((folder / layout.SUMMARY_FILE).read_bytes())
            seconds, best = float(summary["train_seconds"]), int(summary["best_epoch"])
            return cls(folder, config, seconds, best, summary.get("fingerprint"))
        except (AttributeError, ValueError, LookupError, TypeError):
            raise InputError(
                f"{folder / layout.SUMMARY_FILE} is damaged: `limen train ... --resume` writes it again, "
                "without training."
            ) from None

    def load_embeddings(self, split: str) -> EmbeddingSet | None:
        """The embeddings of ``train``, ``validation`` or ``test``; None when the run has no such items."""
        path = layout.get_embeddings_path(self.path, split)
        return read_embeddings(path) if path.is_file() else None

    def load_item_margins(self) -> Float32s | None:
        """The mean margin of each training item over the run, float32 [n], NaN for those that no batch held.

        In the order of the embeddings of ``train``. None for earlier versions and very many classes.
        """
        path = layout.get_margins_path(self.path)
        return np.asarray(read_array(path), dtype=np.float32) if path.is_file() else None

    def check_same_data(self, splits: Splits) -> None:
        """Raises InputError when these are not the items that the run was trained on and measured with."""
        if self.fingerprint is None:  # a run of an earlier version has no fingerprint: only ids are compared
            is_same = all(self._has_ids_of(name, items) for name, items in splits.get_parts().items())
        else:
            is_same = self.fingerprint == compute_fingerprint(splits, self.config.evaluation.exclude_same)
        if not is_same:
            raise InputError(
                f"{self.path}: the data is not what this run was trained on: restore that data or train a "
                "new run."
            )

    def _has_ids_of(self, split: str, items: Items) -> bool:
        stored = self.load_embeddings(split)
        return stored is not None and np.array_equal(stored.ids, items.ids)

    def load_class_corners(self) -> ClassCorners | None:
        """Which fixed class vector belongs to which class; None where all were learned."""
        path = self.path / CLASS_CORNERS_FILE
        return ClassCorners.load(path) if path.is_file() else None

    def load_match_probability(self) -> Probability | None:
        """What a loss learned of the probability that two items match; None where none does."""
        path = self.path / MATCH_PROBABILITY_FILE
        return Probability.load(path) if path.is_file() else None

    def load_preprocessing(self) -> Preprocessing:
        """The rule from raw input to network input."""
        return load_preprocessing(self.path / PREPROCESSING_FILE)

    def load_network(self) -> Network:
        """The best network, in evaluation mode, on the CPU."""
        model = drop_pretrained(self.config.model, self.path / layout.BACKBONE_FOLDER)
        network = build_network(model, self.load_preprocessing())
        load_best_weights(network, self.path)
        return network.eval()

    def ensure_encoder(self) -> Path:
        """The folder of the exported encoder, exported on first use; the same files from then on."""
        folder = self.path / layout.ENCODER_FOLDER
        if not (folder / ENCODER_FILE).is_file():
            export_encoder(self.load_network(), self.load_preprocessing(), folder, str(self.path))
        return folder


def load_best_weights(network: Network, folder: Path) -> None:
    """Load the best weights of a run folder; raises InputError when they are not of this network."""
    path = layout.get_best_path(folder)
    weights = layout.load_weights(path)
    with layout.explain_foreign_tensors(path):
        network.load_state_dict(weights)


def compute_fingerprint(splits: Splits, exclude_same: str | None, track: Track = silent) -> str:
    """A checksum of the data: of inputs and labels of each part, then, after a ``+``, of ids and of the
    values of the column ``exclude_same``; fast, not cryptographic."""
    sums, names = [], 0
    for name, items in splits.get_parts().items():
        sums += [_sum_inputs(items, f"checking the {name} items", track), _compute_sum(items.labels)]
        names = _compute_sum(items.ids, names)
        if exclude_same is not None and exclude_same in items.metadata:
            check_single_values(items.metadata[exclude_same], exclude_same)
            names = _compute_sum(items.metadata[exclude_same], names)
    return f"{'-'.join(f'{value:08x}' for value in sums)}+{names:08x}"


def _sum_inputs(items: Items, name: str, track: Track) -> int:
    if isinstance(items.inputs, RowStore) and items.inputs.checksum is not None:
        return items.inputs.checksum
    total, at_once = 0, max(1, BYTES_AT_ONCE // max(1, items.inputs[:1].nbytes))
    for block in track(read_blocks(items.inputs, at_once), name, math.ceil(len(items) / at_once)):
        total = zlib.crc32(np.ascontiguousarray(block).data, total)
    return total


def _compute_sum(values: NDArray[Any], previous: int = 0) -> int:
    for start in range(0, len(values), VALUES_AT_ONCE):
        part = "\0".join(map(str, values[start : start + VALUES_AT_ONCE].tolist()))
        previous = zlib.crc32(("\0" * (start > 0) + part).encode(errors="surrogatepass"), previous)
    return previous
