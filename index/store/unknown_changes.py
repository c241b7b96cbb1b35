"""Changes of kept queries within a transaction, each of which can be undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from index.store.id_lists import split_ids
from index.store.kept_queries import Verdict
from index.store.tables import UNKNOWNS

CHANGES_KEPT = 4  # of one query, that can be undone one after the other
# what was before, of a query that joined a dropped group
JOINED = json.dumps(
    {
        "status": "open",
        "group_id": None,
        "pin": None,
        "item": None,
        "name": None,
        "change": None,
        "before": None,
    }
)
_C = UNKNOWNS.c
_COLUMN = {"group": "group_id"}


def change_queries(connection: sa.Connection, ids: Sequence[str], change: str, **new: str | None) -> int:
    """Change open queries within a transaction, and remember what was before; returns how many."""
    columns = sa.select(_C.id, _C.status, _C.group_id, _C.pin, _C.item, _C.name, _C.change, _C.before)
    rows = [
        row._asdict()
        for part in split_ids(sorted(set(ids)))
        for row in connection.execute(columns.where(_C.id.in_(part), _C.status == "open"))
    ]
    statement = (
        UNKNOWNS.update()
        .where(_C.id == sa.bindparam("which"))
        .values(
            before=sa.bindparam("earlier"), change=change, **{_COLUMN.get(n, n): v for n, v in new.items()}
        )
    )
    if rows:
        connection.execute(statement, [{"which": row.pop("id"), "earlier": _nest(row)} for row in rows])
    return len(rows)


def enroll_queries(connection: sa.Connection, items: Mapping[str, str], label: str, change: str) -> int:
    """Note within a transaction which items open queries become; returns how many."""
    count = change_queries(connection, list(items), change, status="enrolled", name=label, offered=None)
    rows = [{"which": query_id, "new": item_id} for query_id, item_id in items.items()]
    connection.execute(
        UNKNOWNS.update()
        .where(_C.id == sa.bindparam("which"), _C.change == change)
        .values(item=sa.bindparam("new")),
        rows,
    )
    return count


def undo_change(connection: sa.Connection, change: str) -> int:
    """Put queries back within a transaction; returns how many."""
    rows = connection.execute(sa.select(_C.id, _C.before).where(_C.change == change)).all()
    names = ("status", "group_id", "pin", "item", "name", "change", "before")
    statement = (
        UNKNOWNS.update()
        .where(_C.id == sa.bindparam("which"))
        .values({name: sa.bindparam(f"old_{name}") for name in names})
    )
    restored = []
    for row in rows:
        before = json.loads(row.before)
        before["before"] = None if before["before"] is None else json.dumps(before["before"])
        restored.append({"which": row.id, **{f"old_{name}": before[name] for name in names}})
    if restored:
        connection.execute(statement, restored)
    return len(restored)


def forget_items(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Erase within a transaction what the pool knows of items: queries that became them, and their ids."""
    connection.execute(UNKNOWNS.delete().where(_C.item.in_(ids)))
    connection.execute(
        UNKNOWNS.update().where(_C.candidate.in_(ids)).values(candidate=None, label=None, verdict=None)
    )


def set_verdict(connection: sa.Connection, subject: str, verdict: Verdict | None) -> None:
    """Note within a transaction what a person said about a decision; None where it was taken back."""
    reviews = _C.reviews + 1 if verdict is not None else sa.literal(0)
    connection.execute(
        UNKNOWNS.update().where(_C.subject == subject).values(verdict=verdict, reviews=reviews)
    )


def _nest(row: dict[str, Any]) -> str:
    """What was before a change, with what was before that, as JSON."""
    before = row if row["before"] is None else row | {"before": json.loads(row["before"])}
    innermost, depth = before, 1
    while innermost["before"] is not None:
        depth += 1
        if depth > CHANGES_KEPT:
            innermost["before"] = innermost["change"] = None
            break
        innermost = innermost["before"]
    return json.dumps(before)
