"""A finished run's folder: its configuration, best network, embeddings and exported encoder."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from api_schemas.config import Config, ModelConfig
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from encoder.preprocessing import PREPROCESSING_FILE, Preprocessing
from training.data.items import Items, Splits
from training.export.onnx_export import ENCODER, export_encoder
from training.models.backbones.hub import without_weights
from training.models.network import Network, build_network
from training.run_folder.run_layout import (
    BACKBONE,
    BEST,
    CHECKPOINTS,
    CONFIG,
    EMBEDDINGS,
    SUMMARY,
    load_weights,
    refusing_other_tensors,
)

ROWS_AT_ONCE = 8192


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

    def ensure_encoder(self) -> Path:
        """The folder of the exported encoder, exported on first use; the same files from then on."""
        folder = self.path / "encoder"
        if not (folder / ENCODER).is_file():
            export_encoder(self.network(), self.preprocessing(), folder, str(self.path))
        return folder


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
