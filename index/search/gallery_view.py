"""What readers see at one moment: a generation, what has died in it, and what was written since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import numpy as np

from common.array_types import UnitVectors
from common.errors import InputError
from decision.decider import Decider
from index.items.columns import ColumnKind
from index.items.item_table import ItemTable, Value
from index.search.generation import Generation
from index.search.live_rows import Alive
from index.search.rescoring import Found


class Hit(NamedTuple):
    """An item found; ``similarity`` is the kernel's, ``score`` what the active point thresholds."""

    id: str
    label: str
    similarity: float
    score: float
    row: int
    items: ItemTable

    @property
    def metadata(self) -> dict[str, Value]:
        """The item's further columns, read when asked for."""
        return self.items.metadata_of(self.row)


@dataclass(frozen=True, eq=False)
class View:
    """Immutable; a write makes a new one, and a search that began on the old one ends on it.

    Attributes:
        main: the current generation.
        alive: which of its rows still count; all if None.
        buffer: rows written since, compared exactly; their ids are dead in ``main``.
        fields: the metadata fields that any item has, with their kinds; those of ``main`` if empty.
    """

    main: Generation | None
    alive: Alive | None = None
    buffer: Generation | None = None
    fields: Mapping[str, ColumnKind] = field(default_factory=dict)

    def __len__(self) -> int:
        written = 0 if self.buffer is None else len(self.buffer)
        return self.main_items + written

    @property
    def main_items(self) -> int:
        """Rows of the generation that still count."""
        if self.main is None:
            return 0
        return len(self.main) if self.alive is None else self.alive.count

    @property
    def dead(self) -> int:
        """Rows of the generation that were deleted or replaced."""
        return 0 if self.main is None else len(self.main) - self.main_items

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        if self.main is None:
            return {"kind": "flat", "items": len(self), "buffer": len(self), "dead": 0}
        counts = self.main.counts
        audit = self.main.description.self_recall
        return {
            "kind": self.main.description.kind,
            "items": len(self),
            "classes": counts.classes,
            "distinct_vectors": counts.distinct_vectors,
            "duplicate_groups": self.main.nodes.shared,
            "side_list": counts.side_list,
            "audited": counts.distinct_vectors if audit is None else audit.probed,
            "missed": 0 if audit is None else audit.missed,
            "linked": 0 if audit is None else audit.linked,
            "buffer": len(self) - self.main_items,
            "dead": self.dead,
        }

    @property
    def parts(self) -> list[tuple[Generation, Alive | None]]:
        """The generations there are, each with what is alive of it; everything if None."""
        parts = ((self.main, self.alive), (self.buffer, None))
        return [(part, alive) for part, alive in parts if part is not None]

    def row_of(self, item_id: str) -> tuple[Generation, int] | None:
        """Where an item is, or None."""
        if self.buffer is not None:
            row = self.buffer.items.row_of(item_id)
            if row is not None:
                return self.buffer, row
        if self.main is None:
            return None
        row = self.main.items.row_of(item_id)
        if row is None or (self.alive is not None and not self.alive.rows[row]):
            return None
        return self.main, row

    def vector(self, item_id: str) -> UnitVectors | None:
        """A stored unit row, float32 [d], or None if no item has the id."""
        found = self.row_of(item_id)
        return None if found is None else np.array(found[0].vectors[found[1]])

    def sample(self, n: int) -> UnitVectors:
        """Vectors of evenly spaced rows of the generation, float32 [<= n, d]."""
        if self.main is None:
            return np.empty((0, 1), dtype=np.float32)
        rows = np.arange(len(self.main)) if self.alive is None else np.flatnonzero(self.alive.rows)
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64))
        return np.ascontiguousarray(self.main.vectors[rows[chosen]])

    def search(
        self,
        queries: UnitVectors,
        k: int,
        *,
        decider: Decider | None = None,
        condition: Mapping[str, Any] | None = None,
        exact: bool = False,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """The k most similar items of each query [q, d] unit rows; see ``Gallery.search``."""
        if isinstance(k, bool) or k < 1:
            raise InputError(f"k must be a whole number from 1, found {k!r}.")
        if exclude_ids is not None and len(exclude_ids) != len(queries):
            raise InputError(f"exclude_ids has {len(exclude_ids)} entries for {len(queries)} queries.")
        answers: list[list[Hit]] | None = None
        for generation, alive in self.parts:
            left_out = None if exclude_ids is None else _rows_of(generation.items, exclude_ids)
            found = generation.search(
                queries,
                k,
                condition=condition,
                exact=exact,
                left_out=left_out,
                alive=alive,
                fields=self.fields,
            )
            hits = _hits(generation.items, queries, found, decider)
            answers = (
                hits if answers is None else [_merged(a, b, k) for a, b in zip(answers, hits, strict=True)]
            )
        return [[] for _ in queries] if answers is None else answers


def _rows_of(items: ItemTable, ids: Sequence[str | None]) -> np.ndarray[Any, np.dtype[np.int64]]:
    rows = [None if one is None else items.row_of(one) for one in ids]
    return np.array([-1 if row is None else row for row in rows], dtype=np.int64)


def _merged(a: list[Hit], b: list[Hit], k: int) -> list[Hit]:
    if not b:
        return a
    return sorted([*a, *b], key=lambda hit: (-hit.similarity, hit.id))[:k]


def _hits(items: ItemTable, queries: UnitVectors, found: Found, decider: Decider | None) -> list[list[Hit]]:
    q, width = found.rows.shape
    rows, similarities, lengths = found.rows.ravel(), found.similarities.ravel(), [width] * q
    if q > 1 and rows.size and rows.min() < 0:
        valid = found.rows >= 0
        rows, similarities = found.rows[valid], found.similarities[valid]
        lengths = valid.sum(axis=1).tolist()
    shown = similarities.tolist()
    if decider is None or decider.densities is None:
        scores = shown
    else:
        own = np.repeat(decider.scorer.densities(queries), lengths)
        scores = decider.scorer(similarities, own, items.densities[decider.densities][rows]).tolist()
    classes = items.classes
    labels = [classes[code] for code in items.label_codes[rows].tolist()]
    columns = zip(items.ids.take(rows), labels, shown, scores, rows.tolist(), repeat(items), strict=False)
    hits: list[Hit] = list(map(tuple.__new__, repeat(Hit), columns))  # a third of the time of Hit(...)
    if q == 1:
        return [hits]
    ends = list(accumulate(lengths))
    return [hits[end - length : end] for end, length in zip(ends, lengths, strict=True)]
