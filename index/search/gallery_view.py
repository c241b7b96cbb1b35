"""A snapshot of a gallery: a generation, which of its rows are live, and the rows written since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import numpy as np

from common.array_types import RowIndices, UnitVectors
from common.errors import InputError
from decision.decider import Decider
from index.items.columns import ColumnKind
from index.items.item_table import ItemTable
from index.items.metadata import MetadataValue
from index.search.generation import Generation, LiveRows
from index.search.rescoring import RankedRows


class SearchHit(NamedTuple):
    """An item that a search returns; ``similarity`` is the kernel's, ``score`` what the point thresholds."""

    id: str
    label: str
    similarity: float
    score: float
    row: int
    items: ItemTable

    @property
    def metadata(self) -> dict[str, MetadataValue]:
        """The item's further columns, read on demand."""
        return self.items.get_metadata(self.row)


@dataclass(frozen=True, eq=False)
class GalleryView:
    """Immutable; a write makes a new one, and a search that began on the old one ends on it.

    Attributes:
        main: the current generation.
        live: which of its rows still count; all if None.
        buffer: rows written since, compared exactly; their ids are no longer live in ``main``.
        fields: the metadata fields that any item has, with their kinds; those of ``main`` if empty.
    """

    main: Generation | None
    live: LiveRows | None = None
    buffer: Generation | None = None
    fields: Mapping[str, ColumnKind] = field(default_factory=dict)

    def __len__(self) -> int:
        written = 0 if self.buffer is None else len(self.buffer)
        return self.n_main + written

    @property
    def n_main(self) -> int:
        """Rows of the generation that still count."""
        if self.main is None:
            return 0
        return len(self.main) if self.live is None else self.live.count

    @property
    def n_deleted(self) -> int:
        """Rows of the generation that were deleted or replaced."""
        return 0 if self.main is None else len(self.main) - self.n_main

    def compute_stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        if self.main is None:
            return {"kind": "flat", "items": len(self), "buffer": len(self), "deleted": 0}
        counts = self.main.counts
        audit = self.main.description.self_recall
        return {
            "kind": self.main.description.kind,
            "items": len(self),
            "classes": counts.classes,
            "distinct_vectors": counts.distinct_vectors,
            "duplicate_groups": self.main.nodes.n_shared,
            "side_list": counts.side_list,
            "audited": counts.distinct_vectors if audit is None else audit.probed,
            "missed": 0 if audit is None else audit.missed,
            "linked": 0 if audit is None else audit.linked,
            "buffer": len(self) - self.n_main,
            "deleted": self.n_deleted,
        }

    @property
    def parts(self) -> list[tuple[Generation, LiveRows | None]]:
        """The generations there are, each with its live rows; all if None."""
        parts = ((self.main, self.live), (self.buffer, None))
        return [(part, live) for part, live in parts if part is not None]

    def locate(self, item_id: str) -> tuple[Generation, int] | None:
        """The generation and row of an item, or None."""
        for part, live in reversed(self.parts):
            row = part.items.get_row(item_id)
            if row is not None and (live is None or live.rows[row]):
                return part, row
        return None

    def get_vector(self, item_id: str) -> UnitVectors | None:
        """A stored unit row, float32 [d], or None if no item has the id."""
        located = self.locate(item_id)
        return None if located is None else np.array(located[0].vectors[located[1]])

    def sample(self, n: int) -> UnitVectors:
        """Vectors of evenly spaced rows of the generation, float32 [<= n, d]."""
        if self.main is None:
            return np.empty((0, 1), dtype=np.float32)
        rows = np.arange(len(self.main)) if self.live is None else np.flatnonzero(self.live.rows)
        positions = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64))
        return np.ascontiguousarray(self.main.vectors[rows[positions]])

    def search(
        self,
        queries: UnitVectors,
        k: int,
        *,
        decider: Decider | None = None,
        condition: Mapping[str, Any] | None = None,
        exact: bool = False,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[SearchHit]]:
        """The k most similar items of each query [q, d] unit rows; see ``Gallery.search``."""
        if isinstance(k, bool) or k < 1:
            raise InputError(f"k must be a whole number from 1, found {k!r}.")
        if exclude_ids is not None and len(exclude_ids) != len(queries):
            raise InputError(f"exclude_ids has {len(exclude_ids)} entries for {len(queries)} queries.")
        hits: list[list[SearchHit]] = [[] for _ in queries]
        for part, live in self.parts:
            excluded = None if exclude_ids is None else _get_rows(part.items, exclude_ids)
            ranked = part.search(
                queries, k, condition=condition, exact=exact, excluded=excluded, live=live, fields=self.fields
            )
            of_part = _build_hits(part.items, queries, ranked, decider)
            hits = [_merge_hits(a, b, k) for a, b in zip(hits, of_part, strict=True)]
        return hits


def sort_by_score(hits: Iterable[SearchHit]) -> list[SearchHit]:
    """Hits by falling score, ties by id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _get_rows(items: ItemTable, ids: Sequence[str | None]) -> RowIndices:
    rows = [None if item_id is None else items.get_row(item_id) for item_id in ids]
    return np.array([-1 if row is None else row for row in rows], dtype=np.int64)


def _merge_hits(a: list[SearchHit], b: list[SearchHit], k: int) -> list[SearchHit]:
    if not a or not b:
        return a or b
    return sorted([*a, *b], key=lambda hit: (-hit.similarity, hit.id))[:k]


def _build_hits(
    items: ItemTable, queries: UnitVectors, ranked: RankedRows, decider: Decider | None
) -> list[list[SearchHit]]:
    q, width = ranked.rows.shape
    rows, similarities, lengths = ranked.rows.ravel(), ranked.similarities.ravel(), [width] * q
    if q > 1 and rows.size and rows.min() < 0:
        valid = ranked.rows >= 0
        rows, similarities = ranked.rows[valid], ranked.similarities[valid]
        lengths = valid.sum(axis=1).tolist()
    shown = similarities.tolist()
    if decider is None or decider.scorer.density_key is None:
        scores = shown
    else:
        own = np.repeat(decider.scorer.compute_densities(queries), lengths)
        scores = decider.scorer(similarities, own, items.densities[decider.scorer.density_key][rows]).tolist()
    classes = items.classes
    labels = [classes[code] for code in items.label_codes[rows].tolist()]
    columns = zip(items.ids.take(rows), labels, shown, scores, rows.tolist(), repeat(items), strict=False)
    # a third of the time of SearchHit(...)
    hits: list[SearchHit] = list(map(tuple.__new__, repeat(SearchHit), columns))
    if q == 1:
        return [hits]
    ends = list(accumulate(lengths))
    return [hits[end - length : end] for end, length in zip(ends, lengths, strict=True)]
