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

PROBE = 16  # the fewest candidates a search ever asks for, see index.generation
AUDIT_BLOCK = 1_024


def lost_nodes(
    engine: Engine, vectors: Vectors, firsts: Rows, nodes: Rows | None = None, track: Track = silent
) -> Rows:
    """Nodes that a search for their own vector does not propose.

    Args:
        engine: holds ``vectors[firsts]``.
        vectors: float32 [n, d].
        firsts: int64 [nodes], the row of each node's vector.
        nodes: which to probe; all unless given.

    Returns:
        int64, ascending.
    """
    probed = np.arange(len(firsts)) if nodes is None else nodes
    fetch = min(PROBE, len(firsts))
    lost = []
    blocks = range(0, len(probed), AUDIT_BLOCK)
    for start in track(blocks, "self-recall", len(blocks)):
        some = probed[start : start + AUDIT_BLOCK]
        _, found = engine.search(np.ascontiguousarray(vectors[firsts[some]]), fetch)
        lost.append(some[~(found == some[:, None]).any(axis=1)])
    return np.concatenate(lost) if lost else np.empty(0, dtype=np.int64)
