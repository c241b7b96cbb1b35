"""Items through a network: prepared input to unit vectors, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from training.data.items import Items
from training.models.network import Network
from training.runtime.distributed import Processes


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
    starts: Iterable[int] = range(0, len(shard), batch_size)
    with torch.inference_mode():
        batches = [
            network(prepare(items.inputs[shard[start : start + batch_size]])).cpu().numpy()
            for start in track(starts, "embedding", math.ceil(len(shard) / batch_size))
        ]
    network.train(was_training)
    own = np.concatenate(batches) if batches else np.empty((0, network.dimension), np.float32)
    vectors = processes.gather_rows(own) if processes else own
    return EmbeddingSet.from_arrays(
        vectors, items.labels, items.ids, items.metadata, source="the network's output"
    )
