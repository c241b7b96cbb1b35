"""Interface of a candidate generator: it proposes candidates for queries and never decides.

Every engine holds unit rows, one node per distinct vector, and answers by inner product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import Float32s, RowIndices, UnitVectors
from common.progress import Track

ADD_BLOCK = 32_768
NodeBits = NDArray[np.uint8]  # one bit a node, the first in the lowest bit
Candidates = tuple[Float32s, RowIndices]
"""Similarities and nodes (or rows), both [q, fetch], best first, -1 where there is none."""


class Engine(ABC):
    """Interface of a candidate generator.

    Attributes:
        exact: its similarities are all that there are, up to float32 rounding.
        min_candidates: the fewest candidates a search should fetch, so that re-scoring can put them right.
        candidates_per_result: candidates to fetch for each result.
    """

    exact: ClassVar[bool] = False
    min_candidates: ClassVar[int] = 1
    candidates_per_result: ClassVar[int] = 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Candidates:
        """The best ``fetch`` nodes among those allowed; ``effort`` multiplies the width of the search."""

    def count_comparable_rows(self, effort: float) -> int:
        """The number of rows that are compared exactly in the time of one search of such an effort."""
        return len(self)


class FaissEngine(Engine):
    """An engine kept in a FAISS file: one subclass and one line in ``registry.ENGINES`` for each kind.

    Attributes:
        kind: as configuration and manifest name it.
        faiss_type: the FAISS class that its file holds.
        required_parameters: parameters that the manifest must name.
        auto_up_to: nodes up to which ``auto`` takes it before all others, beyond which it never does.
        similarity_error: by how much its similarities may put two nodes in a wrong order.
        has_links: ``add_links`` can mend what it misses.
        parameters: everything it was built with.
    """

    kind: ClassVar[IndexKind]
    faiss_type: ClassVar[Any]
    required_parameters: ClassVar[frozenset[str]] = frozenset()
    auto_up_to: ClassVar[int | None] = None
    similarity_error: ClassVar[float] = 0.0
    has_links: ClassVar[bool] = False

    def __init__(self, index: Any, parameters: dict[str, int | float]) -> None:
        self._index = index
        self.parameters = parameters

    @classmethod
    @abstractmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        """Hold ``vectors[rows]``, node i being row ``rows[i]``."""

    @classmethod
    @abstractmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Bytes it holds over so many distinct vectors."""

    @classmethod
    def estimate_training_bytes(cls, nodes: int, dim: int) -> int:
        """Bytes of the vectors it is trained on before it holds any."""
        return 0

    @classmethod
    def estimate_build_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Bytes of memory that building it takes at most."""
        return max(cls.estimate_held_bytes(nodes, dim, config), cls.estimate_training_bytes(nodes, dim))

    @classmethod
    def select_requested_parameters(
        cls, parameters: dict[str, int | float], nodes: int
    ) -> dict[str, int | float]:
        """The parameters of a built engine that the configuration had set, to build the next with."""
        return {name: value for name, value in parameters.items() if name in IndexConfig.model_fields}

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def probe_efforts(self) -> list[float]:
        """Efforts below 1 with which self-recall probes first; a search of 1 follows."""
        return []

    def add_links(self, nodes: RowIndices, near: RowIndices) -> None:
        """Give each of [n] nodes one more way in from one of ``near`` [n, f]; see ``has_links``."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))


def search_faiss(index: Any, queries: UnitVectors, fetch: int, params: Any = None) -> Candidates:
    """FAISS's own search. ``faiss.contrib.torch_utils``, which pytorch-metric-learning imports, puts one that
    knows no parameters instead, for the whole process, and keeps the original as ``search_numpy``."""
    search = getattr(index, "search_numpy", index.search)
    return cast(Candidates, search(queries, fetch, params=params))


def reserve(buffer: Any, size: int) -> None:
    """Allocate a FAISS vector once: one that grows by doubling takes up to three times its size."""
    buffer.resize(size)
    buffer.resize(0)


def iterate_blocks(vectors: UnitVectors, rows: RowIndices, track: Track) -> Iterator[UnitVectors]:
    """``vectors[rows]`` a block at a time, with progress."""
    starts = range(0, len(rows), ADD_BLOCK)
    for start in track(starts, "index", len(starts)):
        yield np.ascontiguousarray(vectors[rows[start : start + ADD_BLOCK]])
