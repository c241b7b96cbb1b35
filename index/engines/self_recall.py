"""Self-recall audit: does every stored vector find itself?

HNSW can strand rows that no search reaches (milvus-lite issue 369; knowhere pull request 340 mends them
with further links). After every build nodes are searched for by their own vectors, and those that are
missed are compared with every query exactly from then on. Where that would be many, a graph first gets a
link to each from where its search ended. Links lead other searches elsewhere, too: among near copies they
hid 85 of 3,000 nodes that had been found. Therefore all nodes are probed again after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api_schemas.manifest import SelfRecall
from common.array_types import RowIndices, UnitVectors
from common.progress import Track, silent
from index.engines.engine import BuiltEngine

ALL_UP_TO = 2_000_000  # nodes; of more, a sample is probed first
SAMPLE = 200_000
TOLERATED = 1e-4  # fraction of nodes not probed that may be missed; if the sample allows more, all are probed
CONFIDENCE = 0.95
LISTED_UP_TO = 256  # missed nodes that every query is compared with sooner than the graph is changed
LINK_ROUNDS = 3  # each followed by another probe
NEAR_TIES = 4
AUDIT_BLOCK = 1_024


def audit_self_recall(
    engine: BuiltEngine, vectors: UnitVectors, firsts: RowIndices, track: Track = silent
) -> tuple[RowIndices, SelfRecall]:
    """Probe a new engine, and link what it misses; returns the nodes still missed, ascending, and a record.

    Args:
        engine: holds ``vectors[firsts]``; a graph gets further links.
        vectors: float32 [n, d].
        firsts: int64 [nodes], the row of each node's vector.
    """
    nodes = np.arange(len(firsts))
    prober, probed = _Prober(engine, vectors, firsts), nodes
    if len(nodes) > ALL_UP_TO:
        probed = np.sort(np.random.default_rng(0).choice(nodes, SAMPLE, replace=False))
    missed, near = prober.find_missed(probed, track)
    bound = 0.0 if probed is nodes else bound_missed_fraction(len(missed), len(probed))
    if bound > TOLERATED:
        more, more_near = prober.find_missed(np.delete(nodes, probed), track)
        missed, near = np.concatenate([missed, more]), np.concatenate([near, more_near])
        probed, bound = nodes, 0.0
    lost = missed
    if len(missed) > LISTED_UP_TO and engine.has_links:
        for _ in range(LINK_ROUNDS):
            engine.add_links(lost, near)
            lost, near = prober.probe(lost)
        lost, _ = prober.find_missed(probed, track)
    linked = len(np.setdiff1d(missed, lost))
    record = SelfRecall(probed=len(probed), missed=len(missed), linked=linked, share_upper=bound)
    return np.sort(lost), record


def find_lost_nodes(
    engine: BuiltEngine, vectors: UnitVectors, firsts: RowIndices, track: Track = silent
) -> RowIndices:
    """All nodes, int64 ascending, that a search with the engine's own beam does not find by their vectors."""
    return _Prober(engine, vectors, firsts).probe(np.arange(len(firsts)), track=track)[0]


def bound_missed_fraction(missed: int, probed: int) -> float:
    """The fraction of missed nodes a random sample leaves possible (Clopper & Pearson 1934, one-sided)."""
    from scipy.special import betaincinv  # only those who build large sets pay for the import

    return 1.0 if missed == probed else float(betaincinv(missed + 1, probed - missed, CONFIDENCE))


@dataclass(frozen=True, eq=False)
class _Prober:
    """An engine, searched by its own nodes' vectors ``vectors[firsts]``."""

    engine: BuiltEngine
    vectors: UnitVectors
    firsts: RowIndices

    def find_missed(self, nodes: RowIndices, track: Track) -> tuple[RowIndices, RowIndices]:
        """Probe with narrow beams first; retry nodes that were missed, or found among near ties, with wider
        ones. A search's own effort is for what they leave: it takes many times as long."""
        for effort in self.engine.probe_efforts:
            nodes, _ = self.probe(nodes, effort, track, self.engine.similarity_error)
            track = silent
        return self.probe(nodes, track=track)

    def probe(
        self, nodes: RowIndices, effort: float = 1.0, track: Track = silent, error: float | None = None
    ) -> tuple[RowIndices, RowIndices]:
        """Nodes that a search for their own vector does not propose, and what it does propose [missed, f].

        It fetches what the engine fetches at least. With an ``error`` of similarities it fetches
        ``NEAR_TIES``, and a node among so many that are as near within it does not count as found.
        """
        fetch = min(self.engine.min_candidates if error is None else NEAR_TIES, len(self.firsts))
        missed = [np.empty(0, dtype=np.int64)]
        proposed = [np.empty((0, fetch), dtype=np.int64)]
        starts = range(0, len(nodes), AUDIT_BLOCK)
        for start in track(starts, "self-recall", len(starts)):
            block = nodes[start : start + AUDIT_BLOCK]
            queries = np.ascontiguousarray(self.vectors[self.firsts[block]])
            near, candidates = self.engine.search(queries, fetch, effort)
            is_found = (candidates == block[:, None]).any(axis=1)
            if error is not None:
                is_found &= (near >= near[:, :1] - error).sum(axis=1) < NEAR_TIES
            missed.append(block[~is_found])
            proposed.append(candidates[~is_found])
        return np.concatenate(missed), np.concatenate(proposed)
