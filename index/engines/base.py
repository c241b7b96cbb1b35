"""What an engine is: it proposes candidates and never decides.

Every engine holds unit rows, one node per distinct vector, and answers by inner product.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from api_schemas.manifest import IndexKind
from common.array_types import Float32s, RowIndices, UnitVectors
from common.progress import Track

ADD_BLOCK = 32_768
NodeBits = NDArray[np.uint8]  # one bit a node, the first in the lowest bit
Proposed = tuple[Float32s, RowIndices]  # spelled out within a call it would be made anew each time


class Engine(Protocol):
    """Proposes nodes for queries.

    Attributes:
        kind: as the manifest names it.
        exact: whether its similarities are all that there are, up to float32 rounding.
        fewest: the fewest candidates a search should fetch, so that re-scoring can put them right.
        spread: how many candidates it takes for each one wanted.
        blur: by how much its similarities may put two nodes in a wrong order.
        parameters: everything it was built with.
    """

    kind: IndexKind
    exact: bool
    fewest: int
    spread: int
    blur: float
    parameters: dict[str, int | float]

    def __len__(self) -> int: ...

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """Similarities and nodes [q, fetch], best first, -1 where none; ``effort`` multiplies the width."""

    def worth(self, effort: float) -> int:
        """The number of rows that are compared exactly in the time of one search of such an effort."""

    def save(self, path: Path) -> None:
        """Write the index file."""


def searched(index: Any, queries: UnitVectors, fetch: int, params: Any = None) -> Proposed:
    """FAISS's own search. ``faiss.contrib.torch_utils``, which pytorch-metric-learning imports, puts one that
    knows no parameters in its place for the whole process, and keeps the original as ``search_numpy``."""
    search = getattr(index, "search_numpy", index.search)
    return cast(Proposed, search(queries, fetch, params=params))


def reserve(buffer: Any, size: int) -> None:
    """Room for all that is to come: a buffer that grows by doubling takes up to three times its size."""
    buffer.resize(size)
    buffer.resize(0)


def blocks(vectors: UnitVectors, rows: RowIndices, track: Track) -> Iterator[UnitVectors]:
    """``vectors[rows]`` a block at a time, while the bar moves."""
    starts = range(0, len(rows), ADD_BLOCK)
    for start in track(starts, "index", len(starts)):
        yield np.ascontiguousarray(vectors[rows[start : start + ADD_BLOCK]])
