"""Self-recall: does every stored vector find itself?

HNSW can strand rows that no search reaches (milvus-lite issue 369; knowhere pull request 340). After
every build each node is searched for by its own vector; those that the engine misses are compared with
every query exactly from then on.
"""

from __future__ import annotations

import numpy as np

from decision.progress import Track, silent
from decision.similarity import Vectors
from index.engines import Engine
from index.nodes import Rows

TIE = 1e-3  # what 8 bits a number may hide between two similarities
FEW_TIES = 4
AUDIT_BLOCK = 1_024


def lost_nodes(
    engine: Engine, vectors: Vectors, firsts: Rows, *, thorough: bool = False, track: Track = silent
) -> Rows:
    """Nodes that a search for their own vector does not propose.

    Args:
        engine: holds ``vectors[firsts]``.
        vectors: float32 [n, d].
        firsts: int64 [nodes], the row of each node's vector.
        thorough: probe every node with the beam of a real search. Otherwise a narrow beam goes first, and
            only nodes that it misses, or finds in a crowd of near ties, are probed so: a wider beam visits
            what a narrow one does, and takes several times as long.

    Returns:
        int64, ascending.
    """
    suspects = np.arange(len(firsts))
    for effort in (1.0,) if thorough else (0.0, 1.0):
        suspects = _missed(engine, vectors, firsts, suspects, effort, track)
    return suspects


def _missed(engine: Engine, vectors: Vectors, firsts: Rows, nodes: Rows, effort: float, track: Track) -> Rows:
    fetch = min(engine.fewest, len(firsts))
    missed = [np.empty(0, dtype=np.int64)]
    blocks = range(0, len(nodes), AUDIT_BLOCK)
    for start in track(blocks, "self-recall", len(blocks)):
        some = nodes[start : start + AUDIT_BLOCK]
        near, found = engine.search(np.ascontiguousarray(vectors[firsts[some]]), fetch, effort)
        there = (found == some[:, None]).any(axis=1)
        if effort < 1:
            there &= (near >= near[:, :1] - TIE).sum(axis=1) < FEW_TIES
        missed.append(some[~there])
    return np.concatenate(missed)
