"""A snapshot of a gallery: a generation, which of its rows are live, and the rows written since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import numpy as np

from common.array_types import Bools, Float32s, RowIndices, UnitVectors
from common.errors import InputError
from decision.decider import Decider
from decision.scorers import Scorer
from index.items.class_sums import ClassSums
from index.items.columns import ColumnKind
from index.items.item_table import ItemTable
from index.items.metadata import MetadataValue
from index.search.class_codes import ClassCodes
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


class RankedItems(NamedTuple):
    """The best items of each query, by falling similarity, ties by id.

    Attributes:
        rows: int64 [q, w], -1 past the end.
        similarities: float32 [q, w].
        parts: int64 [q, w], which of the view's parts a row is of; the first if None.
    """

    rows: RowIndices
    similarities: Float32s
    parts: RowIndices | None

    def select(self, query: int) -> RankedItems:
        """Those of one query."""
        one = slice(query, query + 1)
        return RankedItems(
            self.rows[one], self.similarities[one], None if self.parts is None else self.parts[one]
        )


@dataclass(frozen=True, eq=False)
class GalleryView:
    """Immutable; a write makes a new one, and a search that began on the old one ends on it.

    Attributes:
        main: the current generation.
        live: which of its rows still count; all if None.
        buffer: rows written since, compared exactly; their ids are no longer live in ``main``.
        fields: the metadata fields that any item has, with their kinds; those of ``main`` if empty.
        changed: the sums of each class whose items changed since; empty unless a point scores classes.
    """

    main: Generation | None
    live: LiveRows | None = None
    buffer: Generation | None = None
    fields: Mapping[str, ColumnKind] = field(default_factory=dict)
    changed: Mapping[str, ClassSums] = field(default_factory=dict)

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

    @cached_property
    def class_codes(self) -> ClassCodes:
        """The classes by number, with their sums."""
        return ClassCodes(self.main, self.buffer, self.changed)

    @property
    def n_classes(self) -> int:
        """Classes of the gallery; one whose items were all deleted counts until the index is rebuilt."""
        return len(self.class_codes)

    @property
    def parts(self) -> list[tuple[Generation, LiveRows | None]]:
        """The generations there are, each with its live rows; all if None."""
        parts = ((self.main, self.live), (self.buffer, None))
        return [(part, live) for part, live in parts if part is not None]

    def select_counting(self, condition: Mapping[str, Any] | None) -> list[tuple[Generation, Bools | None]]:
        """The parts, and bool [n] which of their rows a condition holds for that are live; all if None."""
        counting: list[tuple[Generation, Bools | None]] = []
        for part, live in self.parts:
            if condition is None:
                counting.append((part, None if live is None else live.rows))
                continue
            rows = np.zeros(len(part), dtype=bool)
            rows[part.select_rows(condition, live, self.fields)] = True
            counting.append((part, rows))
        return counting

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

    def get_hit_vector(self, hit: SearchHit) -> UnitVectors | None:
        """The vector of a hit, float32 [d], by its row where its part is still here; as ``get_vector``."""
        for part, _ in self.parts:
            if part.items is hit.items:
                return np.array(part.vectors[hit.row])
        return self.get_vector(hit.id)

    def sample(self, n: int) -> UnitVectors:
        """Vectors of evenly spaced rows, float32 [<= n, d]; of those written since if there are no others."""
        for part, live in self.parts:
            rows = np.arange(len(part)) if live is None else np.flatnonzero(live.rows)
            if len(rows):
                positions = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64))
                return np.ascontiguousarray(part.vectors[rows[positions]])
        return np.empty((0, 1), dtype=np.float32)

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
        items = self.rank(queries, k, condition=condition, exact=exact, exclude_ids=exclude_ids)
        return self.build_scored_hits(queries, items, decider)

    def build_scored_hits(
        self, queries: UnitVectors, items: RankedItems, decider: Decider | None
    ) -> list[list[SearchHit]]:
        """Ranked items of queries [q, d] as hits with the scores of a point; similarities without one."""
        if decider is None or decider.scorer.is_similarity:
            return self.build_hits(items)
        return self.build_hits(items, decider.scorer, decider.scorer.compute_densities(queries))

    def rank(
        self,
        queries: UnitVectors,
        k: int,
        *,
        condition: Mapping[str, Any] | None = None,
        exact: bool = False,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> RankedItems:
        """The k most similar items of each query [q, d] unit rows, as rows of the parts."""
        if isinstance(k, bool) or k < 1:
            raise InputError(f"k must be a whole number from 1, found {k!r}.")
        if exclude_ids is not None and len(exclude_ids) != len(queries):
            raise InputError(f"exclude_ids has {len(exclude_ids)} entries for {len(queries)} queries.")
        ranked = [
            part.search(
                queries,
                k,
                condition=condition,
                exact=exact,
                excluded=None if exclude_ids is None else _get_rows(part.items, exclude_ids),
                live=live,
                fields=self.fields,
            )
            for part, live in self.parts
        ]
        if len(ranked) == 1:
            return RankedItems(ranked[0].rows, ranked[0].similarities, None)
        return self._merge(ranked, len(queries), k)

    def _merge(self, ranked: list[RankedRows], q: int, k: int) -> RankedItems:
        """The best k rows of both parts, by falling similarity, ties by id."""
        if not ranked:
            nothing = np.empty((q, 0))
            return RankedItems(nothing.astype(np.int64), nothing.astype(np.float32), None)
        rows = np.concatenate([of_part.rows for of_part in ranked], axis=1)
        similarities = np.concatenate([of_part.similarities for of_part in ranked], axis=1)
        parts = np.repeat(np.arange(2), [of_part.rows.shape[1] for of_part in ranked])
        order = np.argsort(-similarities, axis=1, kind="stable")
        rows, similarities = np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)
        parts = parts[order]
        tied = (similarities[:, 1:] == similarities[:, :-1]) & (parts[:, 1:] != parts[:, :-1])
        for query in np.flatnonzero((tied & (rows[:, 1:] >= 0)).any(axis=1)).tolist():
            valid = np.flatnonzero(rows[query] >= 0)
            ids = [self._get_id(*place) for place in zip(parts[query], rows[query], strict=True)]
            by_id = sorted(valid.tolist(), key=lambda at: (-similarities[query, at], ids[at]))
            rows[query, valid], parts[query, valid] = rows[query, by_id], parts[query, by_id]
        return RankedItems(rows[:, :k], similarities[:, :k], parts[:, :k])

    def _get_id(self, part: int, row: int) -> str:
        return self.parts[part][0].items.ids[int(row)]

    def build_hits(
        self, items: RankedItems, scorer: Scorer | None = None, densities: Float32s | None = None
    ) -> list[list[SearchHit]]:
        """Ranked items of each query as hits.

        Their scores are those of ``scorer``, given the queries' ``densities`` [q]; similarities without it.
        """
        q, width = items.rows.shape
        rows, similarities, lengths = items.rows.ravel(), items.similarities.ravel(), [width] * q
        parts = None if items.parts is None else items.parts.ravel()
        if rows.size and rows.min() < 0:
            valid = items.rows >= 0
            lengths = valid.sum(axis=1).tolist()
            rows, similarities = items.rows[valid], items.similarities[valid]
            parts = None if items.parts is None else items.parts[valid]
        if not rows.size:
            return [[] for _ in range(q)]
        scores = None
        if scorer is not None and densities is not None:
            own = np.repeat(densities, lengths)
            scores = scorer(similarities, own, self._get_densities(rows, parts, scorer.density_key)).tolist()
        hits = self.name_items(rows, parts, similarities, scores)
        if q == 1:
            return [hits]
        ends = list(accumulate(lengths))
        return [hits[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    def name_items(
        self,
        rows: RowIndices,
        parts: RowIndices | None,
        similarities: Float32s,
        scores: list[float] | None = None,
    ) -> list[SearchHit]:
        """Items, by row [m] and part, as hits with these scores; the similarities unless given."""
        shown = similarities.tolist()
        scores = shown if scores is None else scores
        if parts is None:
            return _build_hits(self.parts[0][0].items, rows, shown, scores)
        hits: list[Any] = [None] * len(rows)
        for number, (part, _) in enumerate(self.parts):
            at = np.flatnonzero(parts == number)
            of_part = at.tolist()
            some = [shown[place] for place in of_part], [scores[place] for place in of_part]
            for place, hit in zip(of_part, _build_hits(part.items, rows[at], *some), strict=True):
                hits[place] = hit
        return hits

    def _get_densities(self, rows: RowIndices, parts: RowIndices | None, key: str | None) -> Float32s | None:
        """float32 [m]: the local densities of items; None for scores without."""
        if key is None:
            return None
        if parts is None:
            return self.parts[0][0].items.densities[key][rows]
        densities = np.empty(len(rows), dtype=np.float32)
        for number, (part, _) in enumerate(self.parts):
            at = np.flatnonzero(parts == number)
            densities[at] = part.items.densities[key][rows[at]]
        return densities


def read_metadata(hits: Sequence[SearchHit]) -> list[dict[str, MetadataValue]]:
    """The metadata of each hit, read together: a tenth of the time of one hit after the other."""
    tables = {hit.items for hit in hits}
    if len(tables) != 1:
        return [hit.metadata for hit in hits]
    return tables.pop().take_metadata(np.array([hit.row for hit in hits]))


def sort_by_score(hits: Iterable[SearchHit]) -> list[SearchHit]:
    """Hits by falling score, ties by id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _get_rows(items: ItemTable, ids: Sequence[str | None]) -> RowIndices:
    rows = [None if item_id is None else items.get_row(item_id) for item_id in ids]
    return np.array([-1 if row is None else row for row in rows], dtype=np.int64)


def _build_hits(
    items: ItemTable, rows: RowIndices, similarities: list[float], scores: list[float]
) -> list[SearchHit]:
    """Rows, int64 [m], of one part as hits."""
    classes = items.classes
    labels = [classes[code] for code in items.label_codes[rows].tolist()]
    columns = zip(
        items.ids.take(rows), labels, similarities, scores, rows.tolist(), repeat(items), strict=False
    )
    # a third of the time of SearchHit(...)
    return list(map(tuple.__new__, repeat(SearchHit), columns))
