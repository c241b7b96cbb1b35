"""Corrections that a gallery's matches obey: this query is not of that class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

from api_schemas.http.gallery import Feedback
from embeddings.fingerprints import TOLERANCE, are_same, read_fingerprint

CELL = 4 * TOLERANCE  # width of a cell; a fingerprint with its tolerance lies in at most four


class Correction(NamedTuple):
    """A query that is not of a class: the item that it was, if any, and the fingerprint of its vector."""

    subject: str
    item: str | None
    fingerprint: tuple[int, ...]
    label: str


class Corrections:
    """The corrections of a gallery; read by many threads while one adds to them.

    Fingerprints are found by the cell of their first two numbers, so that a look takes as long with many
    corrections as with one. What readers hold is replaced and never changed.
    """

    def __init__(self, corrections: Iterable[Correction] = ()) -> None:
        self.labels: frozenset[str] = frozenset()
        self._subjects: set[str] = set()
        self._of_items: dict[str, frozenset[str]] = {}
        self._of_cells: dict[tuple[int, int], tuple[Correction, ...]] = {}
        given = list(corrections)
        for correction in given:
            self._insert(correction)
        self.labels = frozenset(correction.label for correction in given)

    @classmethod
    def from_feedback(cls, feedback: Iterable[tuple[str, Feedback]]) -> Self:
        """The corrections among feedback, each with its subject."""
        read = (read_correction(subject, entry) for subject, entry in feedback)
        return cls(correction for correction in read if correction is not None)

    def add(self, correction: Correction) -> None:
        """Add a correction about something that there is none about."""
        self._insert(correction)
        self.labels |= {correction.label}

    def _insert(self, correction: Correction) -> None:
        self._subjects.add(correction.subject)
        if correction.item is not None:
            own = self._of_items.get(correction.item, frozenset())
            self._of_items[correction.item] = own | {correction.label}
        first, second = (_list_cells(value) for value in correction.fingerprint[:2])
        for cell in ((x, y) for x in first for y in second):
            self._of_cells[cell] = (*self._of_cells.get(cell, ()), correction)

    def __len__(self) -> int:
        return len(self._subjects)

    def __contains__(self, subject: object) -> bool:
        return subject in self._subjects

    def find_excluded(self, item: str | None, fingerprint: str) -> set[str]:
        """The labels that a query is not to be answered with."""
        excluded = set(self._of_items.get(item, ())) if item is not None else set()
        numbers = read_fingerprint(fingerprint)
        for correction in self._of_cells.get((numbers[0] // CELL, numbers[1] // CELL), ()):
            if are_same(correction.fingerprint, numbers):
                excluded.add(correction.label)
        return excluded


def read_correction(subject: str, entry: Feedback) -> Correction | None:
    """The correction that a piece of feedback is, or None."""
    if entry.not_label is None or entry.fingerprint is None:
        return None
    return Correction(subject, entry.a, read_fingerprint(entry.fingerprint), entry.not_label)


def _list_cells(value: int) -> list[int]:
    return sorted({(value - TOLERANCE) // CELL, (value + TOLERANCE) // CELL})
