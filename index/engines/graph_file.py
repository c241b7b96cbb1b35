"""``graph.npy``: an HNSW graph without its unused slots, mapped into memory, over vectors that lie elsewhere.

FAISS keeps room for 2 m links a node at the bottom and follows them up to the first -1, wherever the next
node's begin. In the file each list ends with its -1: at m = 32 half of the slots are unused.
The file is some arrays as ``.npy`` one after another: the numbers m, entry point and highest layer; offsets;
levels; links; and what an engine adds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from common.array_types import Int32s, Int64s, RowIndices
from common.errors import BundleError

BLOCK_NODES = 65_536
MOST_LINKS = 256  # m, as the configuration bounds it


@dataclass(frozen=True, eq=False)
class Graph:
    """Links between vectors numbered from 0 to n - 1; a number without a node has the level 0.

    Attributes:
        m: links a node in each upper layer; twice that at the bottom.
        entry_point: the node that every search begins at.
        max_level: the highest layer, 0 for the bottom.
        offsets: int64 [n + 1], where each node's links begin.
        levels: int32 [n], in how many layers a node is.
        links: int32, up to 2 m of the bottom layer, ended by -1 if fewer; of a node in several layers 2 m and
            then m of each.
    """

    m: int
    entry_point: int
    max_level: int
    offsets: Int64s
    levels: Int32s
    links: Int32s

    @classmethod
    def read_index(cls, index: Any, numbers: RowIndices, n: int) -> Graph:
        """The graph of a FAISS index, its node i under the number ``numbers[i]`` of n."""
        hnsw = index.hnsw
        links = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
        starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        levels = faiss.vector_to_array(hnsw.levels)
        kept, sizes = [], []
        for start in range(0, len(levels), BLOCK_NODES):
            own = starts[start : start + BLOCK_NODES + 1]
            block = _drop_unused(links[own[0] : own[-1]], own - own[0], levels[start : start + BLOCK_NODES])
            kept.append(np.where(block[0] < 0, -1, numbers[block[0]]).astype(np.int32))
            sizes.append(block[1])
        # a search may look as far as this behind any offset
        kept.append(np.full(hnsw.cum_nb_neighbors(hnsw.max_level + 1), -1, dtype=np.int32))
        ends = np.cumsum(np.concatenate(sizes))
        offsets = np.full(n + 1, ends[-1], dtype=np.int64)
        offsets[numbers] = ends - np.concatenate(sizes)
        of_numbers = np.zeros(n, dtype=np.int32)
        of_numbers[numbers] = levels
        m = hnsw.nb_neighbors(1)
        return cls(
            m, int(numbers[hnsw.entry_point]), hnsw.max_level, offsets, of_numbers, np.concatenate(kept)
        )

    def build_index(self, storage: Any) -> Any:
        """A FAISS index that searches this graph over the vectors of ``storage``; it keeps neither alive."""
        index = faiss.IndexHNSW(storage, self.m)
        index.ntotal = len(self.levels)
        hnsw = index.hnsw
        faiss.copy_array_to_vector(self.levels, hnsw.levels)
        faiss.copy_array_to_vector(self.offsets.astype(np.uint64), hnsw.offsets)
        view_array(hnsw.neighbors, self.links)
        hnsw.entry_point, hnsw.max_level = self.entry_point, self.max_level
        return index

    def save(self, file: Path, further: Sequence[NDArray[Any]] = ()) -> None:
        """Write the graph, and further arrays behind it."""
        with file.open("wb") as out:
            head = np.array([self.m, self.entry_point, self.max_level])
            for array in (head, self.offsets, self.levels, self.links, *further):
                np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)

    @classmethod
    def open(cls, path: Path, further: Sequence[type[np.generic]] = ()) -> tuple[Graph, list[NDArray[Any]]]:
        """Map a graph and further arrays of these kinds; raises BundleError for one that leads astray."""
        kinds: list[type[np.generic]] = [np.int64, np.int64, np.int32, np.int32, *further]
        try:
            with path.open("rb") as file:
                (m, entry_point, max_level), offsets, levels, links, *others = (
                    _map_array(file, kind) for kind in kinds
                )
        except (ValueError, OSError, TypeError, OverflowError) as error:
            raise BundleError(f"{path} is not a graph that can be read: {error}.") from None
        graph = cls(int(m), int(entry_point), int(max_level), offsets, levels, links)
        if not graph._is_sound():
            raise BundleError(f"{path} is not a graph that can be read: its links lead out of it.")
        return graph, others

    def _is_sound(self) -> bool:
        """Whether a search stays within the arrays."""
        n, layers = len(self.levels), self.max_level + 1
        if not (1 <= self.m <= MOST_LINKS and 1 <= layers <= 32 and 0 <= self.entry_point < n):
            return False
        room = len(self.links) - self.m * (layers + 1)
        return (
            len(self.offsets) == n + 1
            and self.offsets.min() >= 0
            and self.offsets.max() <= room
            and self.levels.min() >= 0
            and self.levels.max() <= layers
            and self.links.min() >= -1
            and self.links.max() < n
        )


def view_array(buffer: Any, array: NDArray[Any]) -> None:
    """Let a FAISS vector show an array, which must outlive it, instead of holding numbers of its own."""
    pointer = faiss.swig_ptr(array)
    buffer.view_data = buffer.c_ptr = pointer
    buffer.view_size = buffer.c_size = array.size
    buffer.is_owned = False


def _drop_unused(links: Int32s, starts: Int64s, levels: Int32s) -> tuple[Int32s, Int64s]:
    """The links of nodes without what follows the first -1 of each list, and how many are left of each node.

    Nodes in several layers keep all, since their upper lists begin where FAISS looks for them.
    """
    is_link = links >= 0
    kept = np.empty_like(is_link)
    kept[1:] = is_link[:-1]  # what follows a link: another, or the end of the list
    kept[starts[:-1]] = True
    kept |= is_link
    for node in np.flatnonzero(levels > 1).tolist():
        kept[starts[node] : starts[node + 1]] = True
    return links[kept], np.add.reduceat(kept, starts[:-1], dtype=np.int64)


def _map_array(file: IO[bytes], kind: type[np.generic]) -> NDArray[Any]:
    """The next array of a file, read-only, its pages read when they are used."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of an unknown format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    start, size = file.tell(), int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if dtype != np.dtype(kind) or size < 1 or start + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"an array of {dtype} {shape} where {np.dtype(kind)} should be")
    array = np.memmap(file, dtype, "r", start, shape).view(np.ndarray)
    file.seek(start + size)
    return array
