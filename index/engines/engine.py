"""Interface of a candidate generator: it proposes candidates for queries and never decides.

Every engine holds unit rows, one node per distinct vector, and answers by inner product.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import INDEX_FILE, EffortRecall, IndexDescription, IndexKind, SelfRecall
from common.array_types import Bools, Float32s, RowIndices, UnitVectors
from common.errors import BundleError, LimenError
from common.progress import Track
from index.engines.sampled_recall import require_on_sample

ADD_BLOCK = 32_768
NodeBits = NDArray[np.uint8]  # one bit a node, the first in the lowest bit
Candidates = tuple[Float32s, RowIndices]
"""Similarities and nodes (or rows), both [q, fetch], best first, -1 where there is none."""


class EngineUnavailable(LimenError):
    """The engine cannot be reached, for instance because its server is away; nothing was decided."""


@dataclass(frozen=True, eq=False)
class AllowedNodes:
    """Nodes that a search may return.

    Attributes:
        nodes: bool [nodes].
        condition: the filter that leaves these and perhaps more, None where none was given; the filter
            knows nothing of deletions.
    """

    nodes: Bools
    condition: Mapping[str, Any] | None = None

    @cached_property
    def count(self) -> int:
        return int(self.nodes.sum())

    @cached_property
    def bits(self) -> NodeBits:
        """One bit a node."""
        return np.packbits(self.nodes, bitorder="little")


@dataclass(frozen=True, eq=False)
class NodeSource:
    """What an engine holds, for one that is opened, and perhaps filled, elsewhere.

    Attributes:
        vectors: float32 [n, d] unit rows.
        firsts: int64 [nodes], the row of each node's vector.
        node_of_row: int64 [n]; None where every row is a node of the same number.
        describe: label and metadata of each of [m] nodes; None for a node that several rows share.
        times: metadata fields that hold dates and times, as text.
        model_hash: the model that the vectors come from.
        track: shows progress.
    """

    vectors: UnitVectors
    firsts: RowIndices
    node_of_row: RowIndices | None
    describe: Callable[[RowIndices], list[tuple[str, Mapping[str, Any]] | None]]
    times: frozenset[str]
    model_hash: str
    track: Track


class Engine(ABC):
    """Interface of a candidate generator.

    Attributes:
        is_remote: it is on a server, which can be away.
        is_compressed: it holds less than the vectors, of which those that are scored again are read.
        exact: its similarities are all that there are, up to float32 rounding.
        min_candidates: the fewest candidates a search should fetch, so that re-scoring can put them right.
        candidates_per_result: candidates to fetch for each result.
    """

    is_remote: ClassVar[bool] = False
    is_compressed: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    min_candidates: ClassVar[int] = 1
    candidates_per_result: ClassVar[int] = 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The best ``fetch`` nodes among those allowed; ``effort`` multiplies the width of the search."""

    def count_comparable_rows(self, effort: float) -> int:
        """The number of rows that are compared exactly in the time of one search of such an effort."""
        return len(self)

    def check(self) -> None:  # noqa: B027  (an engine in memory always answers)
        """Raises EngineUnavailable unless it answers."""


class BuiltEngine(Engine):
    """An engine that a generation is built with: one subclass and one line in ``registry.ENGINES`` for each.

    Attributes:
        kind: as configuration and manifest name it.
        file: the file in the generation's folder that it is opened from.
        older_file: what an earlier version wrote instead; None if nothing else.
        effort_parameter: the parameter that a build chooses so that a recall is reached.
        required_parameters: parameters that the manifest must name.
        is_automatic: ``auto`` may choose it.
        auto_up_to: nodes up to which ``auto`` takes it before all others, beyond which it never does.
        similarity_error: by how much its similarities may put two nodes in a wrong order.
        has_links: ``add_links`` can mend what it misses.
        parameters: everything it was built with.
        lost: nodes, int64, that it is known to miss beyond what its generation says.
        audit: the audit of its nodes when it was opened, if it was made only then.
        measured: the recall that values of ``effort_parameter`` reached when it was built, lowest first.
    """

    kind: ClassVar[IndexKind]
    file: ClassVar[str] = INDEX_FILE
    older_file: ClassVar[str | None] = None
    effort_parameter: ClassVar[str | None] = None
    required_parameters: ClassVar[frozenset[str]] = frozenset()
    is_automatic: ClassVar[bool] = True
    auto_up_to: ClassVar[int | None] = None
    similarity_error: ClassVar[float] = 0.0
    has_links: ClassVar[bool] = False

    def __init__(self, parameters: dict[str, int | float]) -> None:
        self.parameters = parameters
        self.lost: RowIndices = np.empty(0, dtype=np.int64)
        self.audit: SelfRecall | None = None
        self.measured: list[EffortRecall] = []

    @classmethod
    @abstractmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        """Hold ``vectors[rows]``, node i being row ``rows[i]``."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, description: IndexDescription, source: NodeSource) -> Self:
        """Open what ``save`` wrote, its checksum verified; read-only from then on.

        Raises BundleError for a file that it cannot read, or of another kind than described.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``file`` into a folder."""

    @classmethod
    def discard(cls, folder: Path, model_hash: str, dim: int) -> None:
        """Remove what it keeps outside a generation's folder, which is about to be removed."""

    @classmethod
    @abstractmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Bytes it holds here over so many distinct vectors while it is built."""

    @classmethod
    def estimate_file_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Bytes of its file over so many distinct vectors."""
        return cls.estimate_held_bytes(nodes, dim, config)

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
        requested = {name: value for name, value in parameters.items() if name in IndexConfig.model_fields}
        if requested.pop("recall", None) is not None:  # what was measured, and what was asked for
            requested.pop(str(cls.effort_parameter), None)
            requested |= {"recall": parameters["target_recall"]} if "target_recall" in parameters else {}
        return requested

    def require_recall(self, recall: float) -> None:
        """Take the least effort that reached a recall when it was built, or the greatest measured."""
        if self.measured:
            required = require_on_sample(recall)
            chosen = next((each for each in self.measured if each.recall >= required), self.measured[-1])
            self.parameters |= {str(self.effort_parameter): chosen.effort, "recall": chosen.recall}

    @property
    def probe_efforts(self) -> list[float]:
        """Efforts below 1 with which self-recall probes first; a search of 1 follows."""
        return []

    def add_links(self, nodes: RowIndices, near: RowIndices) -> None:
        """Give each of [n] nodes one more way in from one of ``near`` [n, f]; see ``has_links``."""
        raise NotImplementedError


class FaissEngine(BuiltEngine):
    """An engine kept in a FAISS file, which is mapped into memory.

    Attributes:
        faiss_type: the FAISS class that its file holds.
    """

    faiss_type: ClassVar[Any]

    def __init__(self, index: Any, parameters: dict[str, int | float]) -> None:
        super().__init__(parameters)
        self._index = index

    @classmethod
    def open(cls, folder: Path, description: IndexDescription, source: NodeSource) -> Self:
        path = folder / INDEX_FILE
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise BundleError(
                f"{path} is not an index that FAISS can read: {str(error).splitlines()[0]}."
            ) from None
        if not isinstance(index, cls.faiss_type) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise BundleError(
                f"{path} holds a {type(index).__name__}, the manifest says {cls.kind}: build the bundle "
                "again."
            )
        return cls(index, dict(description.parameters))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def save(self, folder: Path) -> None:
        faiss.write_index(self._index, str(folder / INDEX_FILE))


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
