"""k-means within each class, the same result on every run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 20  # of k-means; a few dozen items of one class settle in fewer


@dataclass(frozen=True)
class Clusters:
    """Subclasses: unit centres float [k, d], the class of each int [k], its temperature float [k]."""

    centers: Tensor
    labels: Tensor
    temperatures: Tensor


def cluster(items: Tensor, labels: Tensor, cluster_size: int, temperature: float) -> Clusters:
    """Cut each class into about ``n_class / max(smallest class, cluster_size)`` subclasses.

    Args:
        items: float [n, d], unit rows. labels: int [n].
    """
    classes, counts = torch.unique(labels, return_counts=True)
    size = max(int(counts.min()), cluster_size) if len(counts) else cluster_size
    centers, center_labels, spreads, single = [], [], [], []
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        rows = items[labels == label]
        found, members = _k_means(rows, max(1, count // size))
        centers.append(found)
        center_labels.append(torch.full((len(found),), label, device=labels.device))
        away = (rows - found[members]).norm(dim=1)
        sizes = torch.bincount(members, minlength=len(found)).to(items.dtype)
        total = items.new_zeros(len(found)).index_add(0, members, away)
        spreads.append(total / sizes.clamp(min=1) / torch.log(sizes + 10))
        single.append(torch.full((len(found),), len(found) == 1, device=labels.device))
    if not centers:
        return Clusters(items[:0], labels[:0], items.new_zeros(0))
    spread = torch.cat(spreads)
    low, high = torch.quantile(spread, 0.2), torch.quantile(spread, 0.8)
    spread = spread.clamp(low, high)
    scaled = temperature * spread / spread.mean().clamp(min=1e-12)
    # a class that is one cluster has no cousins; items that all coincide have no spread to scale by
    plain = torch.cat(single) | (scaled < temperature * 1e-3)
    return Clusters(torch.cat(centers), torch.cat(center_labels), torch.where(plain, temperature, scaled))


def _k_means(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Unit centres [k, d] by cosine, and each row's centre; starts from the rows farthest apart."""
    closest = rows @ F.normalize(rows.mean(0), dim=0)
    chosen = [int(closest.argmin())]
    closest = rows @ rows[chosen[0]]
    while len(chosen) < k:
        chosen.append(int(closest.argmin()))
        closest = torch.maximum(closest, rows @ rows[chosen[-1]])
    centers = rows[chosen]
    members = (rows @ centers.T).argmax(1)
    for _ in range(ROUNDS):
        sums = rows.new_zeros(centers.shape).index_add(0, members, rows)
        empty = torch.bincount(members, minlength=k) == 0
        centers = torch.where(empty[:, None], centers, F.normalize(sums, dim=1))
        now = (rows @ centers.T).argmax(1)
        if torch.equal(now, members):
            break
        members = now
    return centers, members
