"""Items through a network: prepared input to unit vectors, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.config import Config
from common.array_types import RowIndices
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from training.batches.batch_inputs import TrainingInputs
from training.data.items import Items
from training.data.row_store import read_blocks
from training.models.network import Network
from training.runtime.distributed import Processes

MOST_BYTES = 16 << 20  # of inputs together, as float32: more are no faster, and take memory


def embed_items(
    network: Network,
    items: Items,
    prepare: Callable[[NDArray[np.generic]], Tensor],
    batch_size: int,
    track: Track = silent,
    processes: Processes | None = None,
) -> EmbeddingSet:
    """Embed all items in evaluation mode (running statistics, no dropout); the mode is put back.

    Args:
        processes: all of them must call; each embeds its shard, and all get the whole.
    """
    was_training = network.training
    network.eval()
    rows = np.arange(len(items))
    shard = processes.select_shard(rows) if processes else rows
    of_one = 4 * math.prod(items.inputs.shape[1:])
    batch_size = max(1, min(batch_size, MOST_BYTES // of_one))
    own = np.empty((len(shard), network.dimension), np.float32)
    for tower, places in _share_out(network, items, shard):
        blocks, end = read_blocks(items.inputs, batch_size, shard[places]), 0
        with torch.inference_mode():
            for block in track(blocks, "embedding", math.ceil(len(places) / batch_size)):
                # in place: a result of its own for each batch would split the memory that the next one needs
                own[places[end : end + len(block)]] = tower(prepare(block)).cpu().numpy()
                end += len(block)
    network.train(was_training)
    vectors = processes.gather_rows(own) if processes else own
    return EmbeddingSet.from_arrays(
        vectors, items.labels, items.ids, items.metadata, source="the network's output"
    )


def embed_forms(
    network: Network, inputs: TrainingInputs, config: Config, track: Track, processes: Processes
) -> Tensor:
    """The training items in each of their forms, as one view sees them, in the order of the codes: float
    [items * forms, embedding_dim / views]."""
    model, forms = config.model, []
    for form in range(inputs.forms):
        prepare, size = partial(inputs.prepare_form, form=form), config.evaluation.batch_size
        embedded = embed_items(network, inputs.items, prepare, size, track, processes)
        forms.append(torch.from_numpy(embedded.vectors[:, : model.view_dim] * model.views**0.5))
    return torch.stack(forms, dim=1).flatten(0, 1)


def _share_out(network: Network, items: Items, rows: RowIndices) -> list[tuple[Network, RowIndices]]:
    """Which of the rows each tower of a network embeds, by their positions."""
    if network.query_tower is None or items.is_query is None:
        return [(network, np.arange(len(rows)))]
    asks = items.is_query[rows]
    return [(network.query_tower, np.flatnonzero(asks)), (network, np.flatnonzero(~asks))]
