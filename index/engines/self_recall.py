"""Self-recall: does every stored vector find itself?

HNSW can strand rows that no search reaches (milvus-lite issue 369; knowhere pull request 340 mends them
with further links). After every build nodes are searched for by their own vectors, and those that are
missed are compared with every query exactly from then on. Where that would be many, a graph first gets a
link to each from where its search ended. Links lead other searches elsewhere, too: in a crowd of near copies
they hid 85 of 3,000 that had been found. Therefore all nodes are probed again after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api_schemas.manifest import SelfRecall
from common.array_types import RowIndices, UnitVectors
from common.progress import Track, silent
from index.engines.hnsw import HnswEngine
from index.engines.registry import Approximate

ALL_UP_TO = 2_000_000  # nodes; of more, a sample is probed first
SAMPLE = 200_000
TOLERATED = 1e-4  # share of nodes not probed that may be missed; if the sample leaves room for more, all are
CONFIDENCE = 0.95
FEW = 256  # missed nodes that every query is compared with sooner than the graph is changed
ROUNDS = 3  # of links, each followed by another look
FEW_TIES = 4
AUDIT_BLOCK = 1_024


@dataclass(frozen=True)
class Audit:
    """What an audit leaves: the nodes that are still missed, int64 ascending, and its record."""

    lost: RowIndices
    record: SelfRecall


def audited(engine: Approximate, vectors: UnitVectors, firsts: RowIndices, track: Track = silent) -> Audit:
    """Probe a new engine, and link what it misses.

    Args:
        engine: holds ``vectors[firsts]``; a graph gets further links.
        vectors: float32 [n, d].
        firsts: int64 [nodes], the row of each node's vector.
    """
    nodes = np.arange(len(firsts))
    probed = nodes
    if len(nodes) > ALL_UP_TO:
        probed = np.sort(np.random.default_rng(0).choice(nodes, SAMPLE, replace=False))
    missed, near = _missed(engine, vectors, firsts, probed, track)
    bound = 0.0
    if len(probed) < len(nodes):
        bound = upper_share(len(missed), len(probed))
        if bound > TOLERATED:
            others = np.delete(nodes, probed)
            more, more_near = _missed(engine, vectors, firsts, others, track)
            missed, near = np.concatenate([missed, more]), np.concatenate([near, more_near])
            probed, bound = nodes, 0.0
    lost = missed
    if len(missed) > FEW and isinstance(engine, HnswEngine):
        for _ in range(ROUNDS):
            engine.link(lost, near)
            lost, near = _seen(engine, vectors, firsts, lost, 1.0, silent)
        lost, _ = _missed(engine, vectors, firsts, probed, track)
    linked = len(np.setdiff1d(missed, lost))
    record = SelfRecall(probed=len(probed), missed=len(missed), linked=linked, share_upper=bound)
    return Audit(np.sort(lost), record)


def lost_nodes(
    engine: Approximate, vectors: UnitVectors, firsts: RowIndices, track: Track = silent
) -> RowIndices:
    """All nodes, int64 ascending, that a search with the engine's own beam does not find by their vectors."""
    return _seen(engine, vectors, firsts, np.arange(len(firsts)), 1.0, track)[0]


def upper_share(missed: int, probed: int) -> float:
    """The share of missed nodes that a random sample leaves possible (Clopper & Pearson 1934, one-sided)."""
    from scipy.special import betaincinv  # only those who build large sets pay for the import

    return 1.0 if missed == probed else float(betaincinv(missed + 1, probed - missed, CONFIDENCE))


def _missed(
    engine: Approximate, vectors: UnitVectors, firsts: RowIndices, nodes: RowIndices, track: Track
) -> tuple[RowIndices, RowIndices]:
    """Short looks go first, each at the nodes that those before did not find, or in a crowd of near ties.
    A search's own effort is for what they leave: it takes many times as long."""
    for effort in engine.looks:
        nodes, _ = _seen(engine, vectors, firsts, nodes, effort, track, FEW_TIES)
        track = silent
    return _seen(engine, vectors, firsts, nodes, 1.0, track)


def _seen(
    engine: Approximate,
    vectors: UnitVectors,
    firsts: RowIndices,
    nodes: RowIndices,
    effort: float,
    track: Track,
    few: int | None = None,
) -> tuple[RowIndices, RowIndices]:
    """Nodes that a search for their own vector does not propose, and what it proposes instead [missed, f].

    It fetches what the engine fetches at least. With ``few`` it fetches so many, and a node among so many
    that are nearly as near does not count as found.
    """
    fetch = min(few or engine.fewest, len(firsts))
    missed = [np.empty(0, dtype=np.int64)]
    proposed = [np.empty((0, fetch), dtype=np.int64)]
    blocks = range(0, len(nodes), AUDIT_BLOCK)
    for start in track(blocks, "self-recall", len(blocks)):
        some = nodes[start : start + AUDIT_BLOCK]
        near, found = engine.search(np.ascontiguousarray(vectors[firsts[some]]), fetch, effort)
        there = (found == some[:, None]).any(axis=1)
        if few:
            there &= (near >= near[:, :1] - engine.blur).sum(axis=1) < few
        missed.append(some[~there])
        proposed.append(found[~there])
    return np.concatenate(missed), np.concatenate(proposed)
