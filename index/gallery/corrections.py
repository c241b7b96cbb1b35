"""Corrections that a gallery's matches obey: this query is not of that class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from api_schemas.http.gallery import Feedback
from embeddings.fingerprints import TOLERANCE, are_same

CELL = 4 * TOLERANCE  # width of a cell; a fingerprint with its tolerance lies in at most four


class Correction(NamedTuple):
    """A query that is not of a class: the item that it was, if any, and the fingerprint of its vector."""

    subject: str
    item: str | None
    fingerprint: tuple[int, ...]
    label: str


class Corrections:
    """The corrections of a gallery; immutable, so that a request sees all of them or none.

    Fingerprints are found by the cell of their first two numbers, so that a look takes as long with many
    corrections as with one.
    """

    def __init__(self, corrections: Iterable[Correction] = ()) -> None:
        self._all = tuple(corrections)
        self.labels = frozenset(correction.label for correction in self._all)
        self._of_items: dict[str, set[str]] = defaultdict(set)
        self._of_cells: dict[tuple[int, int], list[Correction]] = defaultdict(list)
        for correction in self._all:
            if correction.item is not None:
                self._of_items[correction.item].add(correction.label)
            first, second = (_list_cells(value) for value in correction.fingerprint[:2])
            for cell in ((x, y) for x in first for y in second):
                self._of_cells[cell].append(correction)

    @classmethod
    def from_feedback(cls, feedback: Iterable[tuple[str, Feedback]]) -> Self:
        """The corrections among feedback, each with its subject."""
        return cls(
            Correction(subject, entry.a, tuple(entry.fingerprint), entry.not_label)
            for subject, entry in feedback
            if entry.not_label is not None and entry.fingerprint is not None
        )

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, subject: object) -> bool:
        return any(correction.subject == subject for correction in self._all)

    def find_excluded(self, item: str | None, fingerprint: Sequence[int]) -> set[str]:
        """The labels that a query is not to be answered with."""
        excluded = set(self._of_items.get(item, ())) if item is not None else set()
        for correction in self._of_cells.get((fingerprint[0] // CELL, fingerprint[1] // CELL), ()):
            if are_same(correction.fingerprint, fingerprint):
                excluded.add(correction.label)
        return excluded


def _list_cells(value: int) -> list[int]:
    return sorted({(value - TOLERANCE) // CELL, (value + TOLERANCE) // CELL})
