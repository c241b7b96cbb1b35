"""Episodes: the items of a batch that are the support, and those that are the queries."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from training.losses.parts.loss_batch import LossBatch


def check_shots(shots: int | None) -> int | None:
    """The same number; raises ValueError when it is below 1."""
    if shots is not None and shots < 1:
        raise ValueError(f"shots must be at least 1, found {shots}")
    return shots


def split_episode(batch: LossBatch, shots: int | None) -> tuple[LossBatch, Tensor | None]:
    """The queries against the support, and which rows are queries, bool [n].

    A batch with references, or without ``shots``, is no episode: it is returned as it is, with None.
    """
    if batch.has_references or shots is None:
        return batch, None
    support = rank_within_class(batch.labels) < shots  # the episodic sampler shuffles each class's items
    queries = ~support
    episode = replace(
        batch,
        embeddings=batch.embeddings[queries],
        labels=batch.labels[queries],
        references=batch.embeddings[support],
        reference_labels=batch.labels[support],
    )
    return episode, queries


def rank_within_class(labels: Tensor) -> Tensor:
    """Position of each item among those of its class in the batch, from 0; int [n] to int [n]."""
    order = torch.argsort(labels, stable=True)
    _, counts = torch.unique_consecutive(labels[order], return_counts=True)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(labels), device=labels.device) - starts
    return position
