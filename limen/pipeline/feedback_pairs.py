"""Pairs for the next training, from what people said about decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from api_schemas.http.gallery import FeedbackEntry
from common.atomic_files import write_atomically
from common.errors import InputError

SUFFIXES = (".parquet", ".csv")


class NamedItem(NamedTuple):
    """An item as training reads it: its text, or its id where it has none."""

    name: str
    label: str


ReadItem = Callable[[str], NamedItem | None]


class FeedbackPairs(NamedTuple):
    """The pairs as columns, and what could not be one.

    Attributes:
        rows: ``a``, ``b`` and ``same`` as training reads them; ``hard``: the decision was wrong; ``score``,
            ``decision``, ``a_id``, ``b_id``, ``a_label``, ``b_label``, ``at``.
        without_items: feedback about queries that are no items, or items that are gone.
        contradicting: pairs said to differ that others say are the same.
    """

    rows: list[dict[str, Any]]
    without_items: int
    contradicting: int


def build_pairs(feedback: Iterable[FeedbackEntry], read_item: ReadItem, *, only_hard: bool) -> FeedbackPairs:
    """Pairs of items from feedback, those whose decision was wrong first.

    A query that was kept counts as the item that it became. Of one pair the newest feedback counts.
    """
    pairs: dict[frozenset[str], dict[str, Any]] = {}
    without = 0
    for entry in feedback:
        ends = [entry.a or entry.item, entry.b]
        items = [None if end is None else read_item(end) for end in ends]
        if items[0] is None or items[1] is None or ends[0] == ends[1]:
            without += 1
            continue
        key = frozenset(str(end) for end in ends)
        pairs.setdefault(key, _write_pair(entry, [str(end) for end in ends], items[0], items[1]))
    groups = _connect((row["a"], row["b"]) for row in pairs.values() if row["same"])
    kept = [row for row in pairs.values() if row["same"] or groups(row["a"]) != groups(row["b"])]
    rows = [row for row in kept if row["hard"] or not only_hard]
    rows.sort(key=lambda row: not row["hard"])
    return FeedbackPairs(rows, without, len(pairs) - len(kept))


def write_pairs(rows: list[dict[str, Any]], out: Path) -> None:
    """Write pairs as Parquet or CSV, by the suffix of the file."""
    if out.suffix not in SUFFIXES:
        raise InputError(f"{out} must end in {' or '.join(SUFFIXES)}.")
    names = ("a", "b", "same", "hard", "score", "decision", "a_id", "b_id", "a_label", "b_label", "at")
    types: dict[str, pa.DataType] = {
        "same": pa.bool_(),
        "hard": pa.bool_(),
        "score": pa.float64(),
        "at": pa.timestamp("us", "UTC"),
    }
    table = pa.table(
        {name: pa.array([row[name] for row in rows], types.get(name, pa.string())) for name in names}
    )
    sink = pa.BufferOutputStream()
    if out.suffix == ".parquet":
        pq.write_table(table, sink)
    else:
        pa_csv.write_csv(table, sink)
    write_atomically(out, sink.getvalue().to_pybytes())


def _write_pair(entry: FeedbackEntry, ids: list[str], a: NamedItem, b: NamedItem) -> dict[str, Any]:
    said_same = entry.decision == "match"
    return {
        "a": a.name,
        "b": b.name,
        "same": entry.same,
        "hard": entry.not_label is not None or (entry.decision is not None and said_same != entry.same),
        "score": entry.score,
        "decision": entry.decision,
        "a_id": ids[0],
        "b_id": ids[1],
        "a_label": a.label,
        "b_label": b.label,
        "at": entry.at,
    }


def _connect(edges: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    """A function from a name to that of its connected component."""
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while parents.get(name, name) != name:
            name = parents[name]
        return name

    for a, b in edges:
        parents[find(a)] = find(b)
    return find
