"""Labels that are written: whether the gallery spells them another way, and whether they name an identity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from threading import Lock

from common.label_spelling import describe_unknown_labels, fold_label
from index.gallery.gallery import Gallery

MAX_NOTES = 10


class LabelNotes:
    """The spellings of a gallery's labels, read when labels are first written; safe in several threads."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._spellings: dict[str, set[str]] | None = None
        self._lock = Lock()

    def fold(self, labels: Sequence[str]) -> list[str]:
        """Labels in the spelling that the gallery has, or else that of the first of them."""
        with self._lock:
            known = self._read()
            chosen: dict[str, str] = {}
            for label in labels:
                folded = fold_label(label)
                if folded not in chosen:
                    there = [other for other in sorted(known.get(folded, ())) if self._is_there(other)]
                    chosen[folded] = label if label in there or not there else there[0]
            return [chosen[fold_label(label)] for label in labels]

    def note(self, labels: Iterable[str]) -> list[str]:
        """Sentences about labels that were written just now, ``MAX_NOTES`` at most."""
        notes = []
        distinct = sorted(set(labels))
        with self._lock:
            known = self._read()
            for label in distinct:
                others = known[fold_label(label)]
                others.add(label)
                there = [other for other in sorted(others) if other != label and self._is_there(other)]
                if there:
                    notes.append(
                        f"The label {label!a} is another class than {there[0]!a}, though case, blanks "
                        "or Unicode form alone tell them apart: write with fold_labels to take the gallery's."
                    )
        unknown = describe_unknown_labels(
            distinct, "If it is not, delete its items: queries of unknown identities need none."
        )
        return [*notes[:MAX_NOTES], *([] if unknown is None else [unknown])]

    def _read(self) -> dict[str, set[str]]:
        if self._spellings is None:
            self._spellings = defaultdict(set)
            for part, _ in self._gallery.view.parts:
                for label in part.items.classes:
                    self._spellings[fold_label(label)].add(label)
        return self._spellings

    def _is_there(self, label: str) -> bool:
        """Whether an item has the label now; its last may have been deleted."""
        counting = self._gallery.view.select_counting({"label": label})
        return any(rows is None or bool(rows.any()) for _, rows in counting)
