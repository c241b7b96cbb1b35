"""Galleries and probes of classes, for what is fitted in a gallery / probe protocol."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from common.array_types import Int64s
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.exclusions import ExcludeSame, read_groups

PROBES = 10  # of a class in a draw, at most
TENTH = 10  # of a class's items, one is no reference where all are wanted
MOST_PROBES = 1500  # of a draw


def join_groups(items: EmbeddingSet, exclude_same: ExcludeSame) -> Int64s:
    """int64 [n]: one number for items of a class that share a group of any column, one joined to the next."""
    groups, _ = read_groups(items, None, exclude_same)
    assert groups is not None
    n = len(items)
    cells = np.concatenate(
        [np.stack([np.full(n, k), items.codes, column], axis=1) for k, column in enumerate(groups.T)]
    )
    # a node for each item, and one for each class and group that items meet in
    nodes = n + np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    ends = np.tile(np.arange(n), groups.shape[1]), nodes
    size = int(nodes.max()) + 1
    graph = sparse.coo_array((np.ones(len(nodes)), ends), shape=(size, size))
    return np.asarray(csgraph.connected_components(graph, directed=False)[1][:n], dtype=np.int64)


def split_probes(
    fit: EmbeddingSet,
    references: int | None,
    rng: np.random.Generator,
    vectors: int = 1,
    units: Int64s | None = None,
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """A random gallery and probes of each class, which have no item in common, and no unit int64 [n].

    A class has as many gallery items as are wanted, or half of them, and at least one. A tenth of its items,
    but one to PROBES of them, are kept as probes, since a gallery wants all of a class where it is what is
    fitted on; classes of one item, or unit, have no probe.
    """
    gallery, probes = [], []
    most = vectors * min(PROBES, max(1, MOST_PROBES // len(fit.classes)))
    shuffled = rng.permutation(len(fit))
    if units is not None:
        drawn = rng.permutation(int(units.max()) + 1)[units]
        shuffled = np.argsort(drawn, kind="stable")
    order = shuffled[np.argsort(fit.codes[shuffled], kind="stable")]
    starts = np.searchsorted(fit.codes[order], np.arange(len(fit.classes) + 1))
    for code in range(len(fit.classes)):
        own = order[starts[code] : starts[code + 1]]
        wanted = len(own) // 2 if references is None else references
        kept = min(PROBES, max(1, len(own) // TENTH))
        n = max(1, min(wanted, len(own) - kept))
        if units is not None:
            ends = np.flatnonzero(np.diff(units[own], append=-1)) + 1  # of each unit
            n = int(ends[min(int(np.searchsorted(ends, n)), max(0, len(ends) - 2))])
        gallery.append(own[:n])
        probes.append(own[n : n + most])
    return fit.subset(np.concatenate(gallery)), fit.subset(np.concatenate(probes))
