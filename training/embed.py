"""Items through a network: pixels to unit vectors, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decision.embeddings import EmbeddingSet
from decision.progress import Track, silent
from encoder.preprocessing import Preprocessing
from training.data.items import Items
from training.devices import sent
from training.network import Network
from training.processes import Processes


class Prepare:
    """Rows of ``Items.inputs`` to the network's input, on a device: the arithmetic of serving, on tensors."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        rule = preprocessing.input
        self.image = rule.kind == "image"
        if rule.kind == "image":
            self.mean = torch.tensor(rule.mean, dtype=torch.float32, device=device).view(-1, 1, 1)
            self.std = torch.tensor(rule.std, dtype=torch.float32, device=device).view(-1, 1, 1)

    def __call__(self, rows: NDArray[np.generic]) -> Tensor:
        """Uint8 [n, c, h, w] or float [n, d] to the float32 input batch."""
        batch = sent(torch.from_numpy(np.ascontiguousarray(rows)), self.device)
        return (batch.float() / 255).sub_(self.mean).div_(self.std) if self.image else batch


def embed(
    network: Network,
    items: Items,
    prepare: Callable[[NDArray[np.generic]], Tensor],
    batch_size: int,
    track: Track = silent,
    processes: Processes | None = None,
) -> EmbeddingSet:
    """Embed all items in evaluation mode (running statistics, no dropout); the mode is put back.

    Args:
        processes: all of them must call; each embeds its share, and all get the whole.
    """
    was_training = network.training
    network.eval()
    rows = np.arange(len(items))
    own = processes.share(rows) if processes else rows
    starts: Iterable[int] = range(0, len(own), batch_size)
    with torch.inference_mode():
        vectors = [
            network(prepare(items.inputs[own[start : start + batch_size]])).cpu().numpy()
            for start in track(starts, "embedding", -(-len(own) // batch_size))
        ]
    network.train(was_training)
    found = np.concatenate(vectors) if vectors else np.empty((0, network.dimension), np.float32)
    whole = processes.rows_of_all(found) if processes else found
    return EmbeddingSet.from_arrays(
        whole, items.labels, items.ids, items.metadata, source="the network's output"
    )
