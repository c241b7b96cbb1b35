"""The classes of a view by number, over the generation and what was written since."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import numpy as np

from common.array_types import Bools, Int32s, Int64s, RowIndices
from decision.class_evidence import EvidenceScorer, PreparedClasses
from index.items.class_sums import ClassSums, concatenate_sums
from index.search.generation import Generation


class ClassCodes:
    """Numbers of classes: those of the generation as it has them, then those of written items alone.

    Args:
        main: the generation, or None.
        buffer: the items written since, or None.
        changed: the sums of classes whose items changed since.
    """

    def __init__(
        self, main: Generation | None, buffer: Generation | None, changed: Mapping[str, ClassSums]
    ) -> None:
        self._sums = None if main is None else main.class_sums
        self._main: list[str] = [] if main is None else main.items.classes
        of_buffer = [] if buffer is None else buffer.items.classes
        known = [None if main is None else main.items.get_code(label) for label in of_buffer]
        self._further = [label for label, code in zip(of_buffer, known, strict=True) if code is None]
        further = iter(range(len(self._main), len(self)))
        codes_of_buffer = np.array(
            [next(further) if code is None else code for code in known], dtype=np.int64
        )
        # of each part of the view its rows' labels, and the number of each of these; itself if None
        self._parts: list[tuple[Int32s, Int64s | None]] = []
        if main is not None:
            self._parts.append((main.items.label_codes, None))
        if buffer is not None:
            self._parts.append((buffer.items.label_codes, codes_of_buffer))
        pairs = sorted((self.get_code(label), label) for label in changed)
        self._changed_codes = np.array([code for code, _ in pairs], dtype=np.int64)
        self._changed = [changed[label] for _, label in pairs]

    def __len__(self) -> int:
        return len(self._main) + len(self._further)

    def get_code(self, label: str) -> int:
        """The number of a class; -1 where no item has the label."""
        for labels, start in ((self._main, 0), (self._further, len(self._main))):
            at = bisect_left(labels, label)
            if at < len(labels) and labels[at] == label:
                return start + at
        return -1

    def get_labels(self, codes: Int64s) -> list[str]:
        """The labels of classes, [m]."""
        n = len(self._main)
        return [self._main[code] if code < n else self._further[code - n] for code in codes.tolist()]

    def get_codes_of_rows(self, rows: RowIndices, parts: RowIndices | None) -> Int64s:
        """int64 [m]: the classes of rows, and of which part of the view each is; the first if None."""
        if parts is None:
            return self._number(0, rows)
        codes = np.empty(len(rows), dtype=np.int64)
        for part in range(len(self._parts)):
            at = np.flatnonzero(parts == part)
            codes[at] = self._number(part, rows[at])
        return codes

    def get_codes_of_part(self, part: int) -> Int64s:
        """int64 [n]: the class of each row of a part of the view."""
        return self._number(part, slice(None))

    def _number(self, part: int, rows: RowIndices | slice) -> Int64s:
        labels, numbers = self._parts[part]
        codes = labels[rows]
        return codes.astype(np.int64) if numbers is None else numbers[codes]

    def get_label_order(self, codes: Int64s) -> tuple[Int64s, ...]:
        """Keys of ``np.lexsort``, the last the first to go by, in whose order labels are sorted as text."""
        if not self._further:
            return (codes,)
        n = len(self._main)
        further = np.array([2 * bisect_left(self._main, label) for label in self._further])
        places = 2 * codes + 1
        is_further = codes >= n
        places[is_further] = further[codes[is_further] - n]
        return codes, places

    def prepare(self, codes: Int64s, scorer: EvidenceScorer) -> tuple[PreparedClasses, Int64s]:
        """Classes prepared for a score, and the positions, int64 [m], of those numbered ``codes`` in them."""
        changed = self._find_changed(codes)
        if self._sums is not None and not changed.any():
            return self._sums.prepare(scorer), codes
        distinct, positions = np.unique(codes, return_inverse=True)
        changed = self._find_changed(distinct)
        kept, others = np.flatnonzero(~changed), np.flatnonzero(changed)
        places = np.searchsorted(self._changed_codes, distinct[others])
        prepared = [self._changed[place].prepare(scorer) for place in places.tolist()]
        if len(kept):
            assert self._sums is not None  # a class without changes is one of the generation's
            prepared.insert(0, self._sums.prepare(scorer).select(distinct[kept]))
        order = np.argsort(np.concatenate([kept, others]))
        return concatenate_prepared(prepared), order[positions]

    def sum_classes(self, codes: Int64s) -> ClassSums:
        """The sums of classes, in this order."""
        changed = self._find_changed(codes)
        parts = []
        for code, is_changed in zip(codes.tolist(), changed.tolist(), strict=True):
            if is_changed:
                parts.append(self._changed[int(np.searchsorted(self._changed_codes, code))])
            else:
                assert self._sums is not None
                parts.append(self._sums.select(slice(code, code + 1)))
        return concatenate_sums(parts)

    def _find_changed(self, codes: Int64s) -> Bools:
        """bool [m]: whether the items of a class changed since the generation was built."""
        if not self._changed:
            return np.zeros(len(codes), dtype=bool)
        places = np.searchsorted(self._changed_codes, codes)
        return np.asarray(self._changed_codes[np.minimum(places, len(self._changed) - 1)] == codes)


def concatenate_prepared(parts: Iterable[PreparedClasses]) -> PreparedClasses:
    """The classes of all parts, one after the other."""
    return PreparedClasses(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
