"""One of the embeddings that a run was trained for: its first numbers, or what an exit makes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from api_schemas.config import Config
from api_schemas.manifest import CONFIG_FILE, ENCODER_FILE, PREPROCESSING_FILE
from common.atomic_files import write_atomically
from common.errors import ConfigError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from encoder.encoder import Encoder
from training.data.load_data import load_data
from training.export.onnx_export import embed_items, export_encoder
from training.models.network import Network
from training.run_folder import layout
from training.run_folder.run_folder import Run


class FirstNumbers(nn.Module):
    """The first so many numbers of a row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, rows: Tensor) -> Tensor:
        """[n, d] to [n, size]."""
        return rows[:, : self.size]


def open_size(run: Run, size: int) -> Run:
    """A run folder inside the run's whose embeddings are the first ``size`` numbers, of unit length.

    It can be evaluated, calibrated, compared and exported as the run itself can.

    Raises:
        ConfigError: a size that the run was not trained for.
    """
    model = run.config.model
    if size == model.embedding_dim:
        return run
    if size not in model.sizes:
        known = ", ".join(map(str, [*model.sizes, model.embedding_dim]))
        raise ConfigError(
            f"--size {size}: {run.path} was trained for {known}: name one, or train with model.sizes."
        )
    network = run.load_network()
    network.head, network.dimension = _cut_head(network.head, size), size
    smaller = [other for other in model.sizes if other < size]
    shape = model.model_copy(update={"embedding_dim": size, "sizes": smaller, "exits": []})
    config = run.config.model_copy(update={"name": f"{run.config.name}-{size}", "model": shape})
    folder = _write_encoder(run, network, config, f"size-{size}")
    for part in layout.PARTS:
        items = run.load_embeddings(part)
        if items is not None:
            save_embeddings(cut_embeddings(items, size), layout.get_embeddings_path(folder, part))
    return _finish(run, folder)


def open_exit(run: Run, block: int, track: Track = silent) -> Run:
    """A run folder inside the run's whose network ends at an exit; its data is embedded anew.

    Raises:
        ConfigError: an exit that the network does not have.
        InputError: the run's data is not what it was trained on.
    """
    if block not in run.config.model.exits:
        known = ", ".join(map(str, run.config.model.exits)) or "none"
        raise ConfigError(
            f"--exit {block}: the network of {run.path} has exits after these blocks: {known}: name one of "
            "these, or train with model.exits."
        )
    splits = load_data(run.config.data, track)
    run.check_same_data(splits)
    config = run.config.model_copy(update={"name": f"{run.config.name}-exit-{block}"})
    network = run.load_network().cut_at(block).eval()
    folder = _write_encoder(run, network, config, f"exit-{block}")
    encoder = Encoder.open(folder / layout.ENCODER_FOLDER, threads=0)
    for part, items in splits.get_parts().items():
        save_embeddings(embed_items(encoder, items, track), layout.get_embeddings_path(folder, part))
    return _finish(run, folder)


def cut_embeddings(items: EmbeddingSet, size: int) -> EmbeddingSet:
    """The first ``size`` numbers of each embedding, of unit length."""
    rows = items.vectors[:, :size]
    return EmbeddingSet.from_arrays(rows, items.labels, items.ids, items.metadata, source="the embeddings")


def _cut_head(head: nn.Module, size: int) -> nn.Module:
    if not isinstance(head, nn.Linear):
        return nn.Sequential(head, FirstNumbers(size))
    smaller = nn.Linear(head.in_features, size, bias=head.bias is not None)
    with torch.no_grad():
        smaller.weight.copy_(head.weight[:size])
        if head.bias is not None:
            smaller.bias.copy_(head.bias[:size])
    return smaller


def _write_encoder(run: Run, network: Network, config: Config, name: str) -> Path:
    folder, preprocessing = run.path / name, run.load_preprocessing()
    (folder / layout.EMBEDDINGS_FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / layout.ENCODER_FOLDER / ENCODER_FILE).unlink(missing_ok=True)
    export_encoder(network, preprocessing, folder / layout.ENCODER_FOLDER, str(folder))
    preprocessing.save(folder / PREPROCESSING_FILE)
    config.save(folder / CONFIG_FILE)
    return folder


def _finish(run: Run, folder: Path) -> Run:
    write_atomically(folder / layout.SUMMARY_FILE, (run.path / layout.SUMMARY_FILE).read_bytes())
    return Run.open(folder)
