"""A generation: one immutable build of vectors, items and engine, which a bundle holds and readers search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import ITEMS_FILE, VECTORS_FILE, BundleCounts, IndexDescription
from common.array_types import Bools, Float32s, RowIndices, UnitVectors
from common.errors import BundleError
from common.free_memory import return_free_memory
from common.progress import Track, silent
from common.spans import add_span
from embeddings.embedding_set import EmbeddingSet
from index.engines.distinct_vectors import Nodes, find_distinct_vectors
from index.engines.engine import AllowedNodes, BuiltEngine, Engine, NodeSource
from index.engines.exact_scan import propose_certain_top, scan_rows
from index.engines.flat import BufferEngine
from index.engines.memory_estimate import measure_free_memory, select_kind
from index.engines.registry import ENGINES, open_engine
from index.engines.self_recall import audit_self_recall, find_lost_nodes
from index.items.class_sums import ClassSums
from index.items.columns import ColumnKind
from index.items.filters import select_rows
from index.items.item_table import ItemTable
from index.search.page_release import PageRelease
from index.search.rescoring import SPENT, RankedRows, rescore

SPARE = 6  # fetched beyond k, and never fewer than the audit fetched when it probed each row
CHECKED_ROWS = 65_536
LENGTH_TOLERANCE = 1e-3  # of squared lengths; rounding to float32 changes them by a ten-thousandth of that
EXACT_ROWS = 4_096  # a filter that leaves this many rows or fewer is answered by comparing with all of them


@dataclass(frozen=True, eq=False)
class LiveRows:
    """The rows, bool [n], of a generation that a search may return, and the nodes of any."""

    rows: Bools
    nodes: AllowedNodes

    @cached_property
    def count(self) -> int:
        return int(self.rows.sum())


@dataclass(frozen=True, eq=False)
class Generation:
    """Vectors, items and engine that belong together; safe to search from many threads.

    Attributes:
        vectors: float32 [n, d] unit rows, memory-mapped when opened from disk.
        items: columns in the same row order.
        engine: holds one node per distinct vector.
        nodes: which rows a node leads to.
        description: the engine as the manifest names it.
        class_sums: of each class; None unless a point scores classes.
    """

    vectors: UnitVectors
    items: ItemTable
    engine: Engine
    nodes: Nodes
    description: IndexDescription
    class_sums: ClassSums | None = None

    @classmethod
    def build(
        cls,
        items: EmbeddingSet,
        config: IndexConfig,
        densities: Mapping[str, Float32s] | None = None,
        track: Track = silent,
    ) -> Generation:
        """Build the engine over a labelled set and audit it."""
        firsts, node_of_row = find_distinct_vectors(items.vectors)
        engine, lost, description = _build_engine(items.vectors, firsts, config, track)
        table = ItemTable.from_set(items, node_of_row, lost[node_of_row], densities)
        nodes = Nodes.from_node_of_row(node_of_row, table.rank)
        return cls(items.vectors, table, engine, nodes, description)

    def build_other_engine(self, config: IndexConfig, track: Track = silent) -> Generation:
        """The same items with another engine, which is audited."""
        engine, lost, description = _build_engine(self.vectors, self.nodes.firsts, config, track)
        items = replace(self.items, side=lost[self.items.node])
        return replace(self, items=items, engine=engine, description=description)

    def save(self, folder: Path) -> None:
        """Write vectors (unless they are mapped from there), items and index into a folder."""
        if not (folder / VECTORS_FILE).exists():
            np.save(folder / VECTORS_FILE, self.vectors)
        self.items.save(folder / ITEMS_FILE)
        assert isinstance(self.engine, BuiltEngine)  # a buffer is never saved
        self.engine.save(folder)

    @classmethod
    def build_buffer(cls, items: EmbeddingSet, densities: Mapping[str, Float32s]) -> Generation:
        """A small generation in memory that is compared exactly and built in no time."""
        rows = np.arange(len(items))
        table = ItemTable.from_set(items, rows, np.zeros(len(items), dtype=bool), densities)
        nodes = Nodes.from_node_of_row(rows, table.rank)
        return cls(items.vectors, table, BufferEngine(items.vectors), nodes, IndexDescription(kind="flat"))

    @classmethod
    def open(
        cls, folder: Path, description: IndexDescription, dim: int, model_hash: str, track: Track = silent
    ) -> Generation:
        """Open what ``save`` wrote, its checksums verified; raises BundleError where files do not fit.

        An engine on a server that lacks these vectors is filled first, which ``track`` shows.
        """
        path = folder / VECTORS_FILE
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except (ValueError, OSError) as error:
            raise BundleError(f"{path} cannot be read as an array: {error}.") from None
        items = ItemTable.load(folder / ITEMS_FILE)
        if vectors.dtype != np.float32 or vectors.shape != (len(items), dim):
            raise BundleError(
                f"{path} holds {vectors.dtype} {vectors.shape}, but the items and the manifest "
                f"need float32 {(len(items), dim)}."
            )
        nodes = Nodes.from_node_of_row(items.node, items.rank)
        source = _describe_nodes(vectors, items, nodes, model_hash, track)
        engine = open_engine(folder, description, source)
        if len(engine) != len(nodes):
            raise BundleError(
                f"{folder / engine.file} holds {len(engine)} nodes, {ITEMS_FILE} names {len(nodes)}."
            )
        if len(engine.lost):
            items = replace(items, side=items.side | np.isin(items.node, engine.lost))
        changes: dict[str, Any] = {"parameters": dict(engine.parameters)}
        if engine.audit is not None:
            changes["self_recall"] = engine.audit
        description = description.model_copy(update=changes)
        return_free_memory()
        return cls(vectors, items, engine, nodes, description)

    def __len__(self) -> int:
        return len(self.items)

    def check_rows(self) -> None:
        """Raises BundleError for a row that is no unit vector, as NaN is none."""
        for start in range(0, len(self), CHECKED_ROWS):
            rows = self.vectors[start : start + CHECKED_ROWS]
            squares = np.einsum("ij,ij->i", rows, rows)
            # not the other way round: NaN is not near
            wrong = np.flatnonzero(~(np.abs(squares - 1) < LENGTH_TOLERANCE))
            if len(wrong):
                row = start + int(wrong[0])
                raise BundleError(
                    f"{VECTORS_FILE}: row {row}, item '{self.items.ids[row]:.100}', is no vector of length "
                    f"1: its squared length is {squares[wrong[0]]:g}."
                )

    @property
    def counts(self) -> BundleCounts:
        """Counts for the manifest, without the cohort."""
        return BundleCounts(
            items=len(self),
            classes=len(self.items.classes),
            distinct_vectors=len(self.nodes),
            side_list=int(self.items.side.sum()),
            cohort=0,
        )

    def search(
        self,
        queries: UnitVectors,
        k: int,
        *,
        condition: Mapping[str, Any] | None = None,
        exact: bool = False,
        excluded: RowIndices | None = None,
        live: LiveRows | None = None,
        fields: Mapping[str, ColumnKind] | None = None,
    ) -> RankedRows:
        """The k most similar rows of each query, re-scored by the one similarity kernel.

        Args:
            queries: float32 [q, d] unit rows.
            k: how many; fewer only where fewer match.
            condition: a filter.
            exact: compare with all rows, without the engine.
            excluded: int64 [q], a row each query leaves out, -1 for none.
            live: rows that are still live; all unless given.
            fields: further fields a filter may name, which no row here has.
        """
        allowed = None
        if condition is not None:
            allowed = self.select_rows(condition, live, fields)
            if live is None and len(allowed) == len(self):
                allowed = None
        wanted = k + (excluded is not None)
        begun = perf_counter()
        candidates = self._propose(queries, wanted, allowed, condition, exact, live)
        add_span("propose", begun)
        if excluded is not None:
            candidates = np.where(candidates == excluded[:, None], -1, candidates)
        start = perf_counter()
        rows = rescore(self.vectors, self.items.rank, queries, candidates, k)
        SPENT.seconds += perf_counter() - start
        if self.engine.is_compressed:
            self._pages.count(len(self) if exact or allowed is not None else candidates.size)
        add_span("rescore", start)
        return rows

    def select_rows(
        self,
        condition: Mapping[str, Any],
        live: LiveRows | None = None,
        fields: Mapping[str, ColumnKind] | None = None,
    ) -> RowIndices:
        """Rows, int64 ascending, that a filter holds for and that are still live; see ``search``."""
        rows = select_rows(condition, self.items, fields)
        return rows if live is None else rows[live.rows[rows]]

    def _propose(
        self,
        queries: UnitVectors,
        k: int,
        allowed: RowIndices | None,
        condition: Mapping[str, Any] | None,
        exact: bool,
        live: LiveRows | None,
    ) -> RowIndices:
        """Candidates of each query, int64 [q, w], -1 where there is none."""
        if allowed is not None:
            few = exact or len(allowed) <= max(EXACT_ROWS, k)
            if few or len(allowed) <= self.engine.count_comparable_rows(self._compute_effort(len(allowed))):
                return scan_rows(self.vectors, queries, k, allowed)
            mask = np.zeros(len(self), dtype=bool)
            mask[allowed] = True
            return self._propose_among(queries, k, self.build_live_rows(mask, condition))
        if exact and not self.engine.exact:
            return scan_rows(self.vectors, queries, k, None if live is None else np.flatnonzero(live.rows))
        return self._propose_any(queries, k) if live is None else self._propose_among(queries, k, live)

    def _compute_effort(self, rows: int) -> float:
        """Factor by which a beam widens where only so many rows may be returned.

        Measured on clustered data at 128 numbers: recall stays where it was if the beam grows with the
        square of what a filter leaves out, 4 at a half, 8 at a third.
        """
        return float(len(self) / rows) ** 2

    def build_live_rows(self, rows: Bools, condition: Mapping[str, Any] | None = None) -> LiveRows:
        """Rows that a search may return, bool [n], those of a filter if one is given; with their nodes."""
        nodes = rows
        if not self.nodes.is_plain:
            nodes = np.zeros(len(self.nodes), dtype=bool)
            nodes[self.nodes.node_of_row[rows]] = True
        return LiveRows(rows, AllowedNodes(nodes, condition))

    def _propose_any(self, queries: UnitVectors, k: int) -> RowIndices:
        total = len(self.nodes)
        if self.engine.exact:
            nodes = propose_certain_top(self.engine.search, queries, k, total)
            return self.nodes.expand(nodes, at_most=k)
        _, nodes = self.engine.search(queries, min(self._compute_fetch(k), total))
        rows = self.nodes.expand(nodes, at_most=k)
        if nodes.min() < 0 and (rows >= 0).sum(axis=1).min() < min(k, len(self)):
            return scan_rows(self.vectors, queries, k)
        return self._add_side_list(rows, queries, k)

    def _propose_among(self, queries: UnitVectors, k: int, live: LiveRows) -> RowIndices:
        if self.engine.exact or not live.count:
            return scan_rows(self.vectors, queries, k, np.flatnonzero(live.rows))
        effort = self._compute_effort(live.count)
        fetch = min(self._compute_fetch(k), live.nodes.count)
        _, nodes = self.engine.search(queries, fetch, effort, live.nodes)
        rows = self.nodes.expand(nodes, at_most=None)
        rows = np.where((rows >= 0) & live.rows[rows], rows, -1)
        side = self._side_rows
        rows = self._add_side_list(rows, queries, k, side[live.rows[side]])
        # the beam ran dry: compare with every live row
        if (rows >= 0).sum(axis=1).min() < min(k, live.count):
            return scan_rows(self.vectors, queries, k, np.flatnonzero(live.rows))
        return rows

    def _compute_fetch(self, k: int) -> int:
        return max(self.engine.min_candidates, self.engine.candidates_per_result * k, k + SPARE)

    @cached_property
    def _pages(self) -> PageRelease:
        return PageRelease(self.vectors)

    @cached_property
    def _side_rows(self) -> RowIndices:
        return np.flatnonzero(self.items.side)

    @cached_property
    def _side_vectors(self) -> UnitVectors:
        return np.ascontiguousarray(self.vectors[self._side_rows])

    def _add_side_list(
        self, rows: RowIndices, queries: UnitVectors, k: int, side: RowIndices | None = None
    ) -> RowIndices:
        """Add the best rows of the side list, or of the part of it that a filter leaves."""
        if not len(self._side_rows):
            return rows
        # a row on the side list may be proposed now and then all the same: it must not count twice
        rows = np.where((rows >= 0) & self.items.side[rows], -1, rows)
        if side is None and len(self._side_rows) <= k + SPARE:
            best = self._side_rows[None].repeat(len(queries), axis=0)
        elif side is None:
            best = scan_rows(self._side_vectors, queries, k)
            best = np.where(best < 0, -1, self._side_rows[best])
        else:
            best = scan_rows(self.vectors, queries, k, side)
        return np.concatenate([rows, best], axis=1)

    def find_lost_rows(self, track: Track = silent) -> RowIndices:
        """Rows that neither the engine nor the side list finds: the full self-recall audit."""
        if self.engine.exact:
            return np.empty(0, dtype=np.int64)
        assert isinstance(self.engine, BuiltEngine)
        firsts = self.nodes.firsts
        rows = firsts[find_lost_nodes(self.engine, self.vectors, firsts, track)]
        return rows[~self.items.side[rows]]


def _build_engine(
    vectors: UnitVectors, firsts: RowIndices, config: IndexConfig, track: Track
) -> tuple[BuiltEngine, Bools, IndexDescription]:
    """An engine over ``vectors[firsts]``, and the nodes, bool, that its audit did not find."""
    kind, reason = select_kind(config, len(firsts), vectors.shape[1], measure_free_memory())
    engine = ENGINES[kind].build(vectors, firsts, config, track)
    lost, record = np.zeros(len(firsts), dtype=bool), None
    if not (engine.exact or engine.is_remote):  # which is audited on the server that it is opened on
        lost_nodes, record = audit_self_recall(engine, vectors, firsts, track)
        lost[lost_nodes] = True
    description = IndexDescription(
        kind=kind,
        parameters=dict(engine.parameters),
        reason=reason,
        self_recall=record,
        measured=engine.measured,
    )
    return engine, lost, description


def _describe_nodes(
    vectors: UnitVectors, items: ItemTable, nodes: Nodes, model_hash: str, track: Track
) -> NodeSource:
    """A generation's nodes for an engine elsewhere."""
    firsts, shared = nodes.firsts, nodes.are_shared

    def describe(of_nodes: RowIndices) -> list[tuple[str, Mapping[str, Any]] | None]:
        return [
            None if shared[node] else (items.classes[items.label_codes[row]], items.get_metadata(row))
            for node, row in zip(of_nodes.tolist(), firsts[of_nodes].tolist(), strict=True)
        ]

    times = frozenset(name for name, use in items.count_fields().items() if use.kind == "time")
    node_of_row = None if nodes.is_plain else nodes.node_of_row
    return NodeSource(vectors, firsts, node_of_row, describe, times, model_hash, track)
