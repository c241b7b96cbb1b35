"""k-means within each class, the same result on every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 20  # of k-means; a few dozen items of one class settle in fewer


@dataclass(frozen=True)
class Clusters:
    """Subclasses: unit centres float [k, d], each one's class int [k] and its temperature float [k]."""

    centers: Tensor
    labels: Tensor
    temperatures: Tensor


def compute_subclass_size(class_sizes: Sequence[int], cluster_size: int) -> int:
    """Items of a subclass, ``max(smallest class, cluster_size)``: a class has ``n_class // size`` of them."""
    return max(min(class_sizes), cluster_size)


def cluster_classes(items: Tensor, labels: Tensor, size: int, temperature: float) -> Clusters:
    """Split each class into subclasses of about ``size`` items.

    Args:
        items: float [n, d], unit rows. labels: int [n].
    """
    classes = torch.unique(labels)
    if not len(classes):
        return Clusters(items[:0], labels[:0], items.new_zeros(0))
    groups = [items[labels == label] for label in classes.tolist()]
    centers = [fit_k_means(rows, max(1, len(rows) // size)) for rows in groups]
    parts = torch.tensor([len(rows) for rows in centers], device=labels.device)
    temperatures = _compute_temperatures(groups, parts, temperature)
    return Clusters(
        torch.cat(centers), classes.repeat_interleave(parts), temperatures.repeat_interleave(parts)
    )


def _compute_temperatures(groups: list[Tensor], parts: Tensor, temperature: float) -> Tensor:
    """Temperature of each class, float [c]: higher for wide classes, the plain one for single clusters."""
    spread = torch.stack(
        [(rows - rows.mean(0)).norm(dim=1).mean() / math.log(len(rows) + 10) for rows in groups]
    )
    spread = spread.clamp(torch.quantile(spread, 0.2), torch.quantile(spread, 0.8))
    scaled = temperature * spread / spread.mean().clamp(min=1e-12)
    # items that all coincide have no spread to scale by
    return torch.where((parts == 1) | (scaled < temperature * 1e-3), temperature, scaled)


def fit_k_means(rows: Tensor, k: int) -> Tensor:
    """Unit centres [k, d] by cosine; starts from the rows farthest apart."""
    closest = rows @ F.normalize(rows.mean(0), dim=0)
    starts = [int(closest.argmin())]
    closest = rows @ rows[starts[0]]
    while len(starts) < k:
        starts.append(int(closest.argmin()))
        closest = torch.maximum(closest, rows @ rows[starts[-1]])
    centers = rows[starts]
    members = (rows @ centers.T).argmax(1)
    for _ in range(ROUNDS):
        sums = rows.new_zeros(centers.shape).index_add(0, members, rows)
        empty = torch.bincount(members, minlength=k) == 0
        centers = torch.where(empty[:, None], centers, F.normalize(sums, dim=1))
        now = (rows @ centers.T).argmax(1)
        if torch.equal(now, members):
            break
        members = now
    return centers
