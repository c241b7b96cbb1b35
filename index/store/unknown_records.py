"""The pool of unknowns: queries that were kept, in groups, and what was done with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import sqlalchemy as sa

from common.array_types import UnitVectors
from common.time_budget import check_time
from index.store.id_lists import split_ids
from index.store.item_store import ItemStore
from index.store.kept_queries import Change, Group, KeptQuery, PoolFilter, Status
from index.store.tables import ITEMS, UNKNOWNS
from index.store.unknown_changes import JOINED, change_queries, undo_change
from index.store.write_order import WriteOrder

READ_BLOCK = 4_096
_C = UNKNOWNS.c


class UnknownRecords:
    """Kept in the item store, so that a query becomes an item in one transaction; ``writing`` keeps
    writers apart. Every method is one transaction; on return what was written is on disk.
    """

    def __init__(
        self, store: ItemStore, writing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._store = store
        self._writing = writing

    def add(self, queries: Sequence[KeptQuery], most: int, expired_before: float) -> int:
        """Keep queries; those that are too old or too many go, oldest first. Returns how many went."""
        with self._writing(), self._store._begin_write() as connection:
            if queries:
                connection.execute(UNKNOWNS.insert(), [_to_row(query) for query in queries])
                # their best candidates may have been deleted since they were decided
                gone_items = ~sa.exists().where(ITEMS.c.id == _C.candidate)
                connection.execute(
                    UNKNOWNS.update()
                    .where(_C.id >= min(query.id for query in queries), _C.candidate.is_not(None), gone_items)
                    .values(candidate=None, label=None)
                )
            gone = connection.execute(UNKNOWNS.delete().where(_C.at < expired_before)).rowcount
            count = connection.execute(sa.select(sa.func.count()).select_from(UNKNOWNS)).scalar_one()
            if count > most:
                newest = sa.select(_C.id).order_by(_C.id.desc()).offset(most).limit(1).scalar_subquery()
                gone += connection.execute(UNKNOWNS.delete().where(_C.id <= newest)).rowcount
            return int(gone)

    def count(self, which: PoolFilter) -> int:
        """How many there are."""
        with self._store._read() as connection:
            return int(
                connection.execute(
                    sa.select(sa.func.count()).select_from(UNKNOWNS).where(*_build_conditions(which))
                ).scalar_one()
            )

    def count_by_status(self) -> dict[str, int]:
        """How many unknown queries have each status."""
        counted = sa.select(_C.status, sa.func.count()).where(_C.decision == "unknown").group_by(_C.status)
        with self._store._read() as connection:
            return {status: int(count) for status, count in connection.execute(counted)}

    def page(self, which: PoolFilter, limit: int) -> list[KeptQuery]:
        """Kept queries without their vectors, newest first."""
        statement = _COLUMNS.where(*_build_conditions(which)).order_by(_C.id.desc()).limit(limit)
        with self._store._read() as connection:
            return [_to_query(row) for row in connection.execute(statement)]

    def get(self, query_id: str) -> KeptQuery | None:
        """A kept query with its vector, or None."""
        found = self.read([query_id])
        return found[0] if found else None

    def read(self, ids: Sequence[str]) -> list[KeptQuery]:
        """Those of the ids that there are, with vectors and thumbnails, in the order of their ids."""
        columns = _COLUMNS.add_columns(_C.vector, _C.thumbnail)
        with self._store._read() as connection:
            return [
                _to_query(row)
                for part in split_ids(sorted(set(ids)))
                for row in connection.execute(columns.where(_C.id.in_(part)).order_by(_C.id))
            ]

    def read_subjects(self, subjects: Sequence[str]) -> dict[str, KeptQuery]:
        """The kept queries, by the decisions that they got."""
        with self._store._read() as connection:
            rows = (
                row
                for part in split_ids(sorted(set(subjects)))
                for row in connection.execute(_COLUMNS.where(_C.subject.in_(part)))
            )
            return {row.subject: _to_query(row) for row in rows}

    def read_thumbnail(self, query_id: str) -> bytes | None:
        """The thumbnail of a kept query, or None."""
        with self._store._read() as connection:
            content = connection.execute(sa.select(_C.thumbnail).where(_C.id == query_id)).scalar()
            return None if content is None else bytes(content)

    def list_ids(self, which: PoolFilter, limit: int) -> list[str]:
        """The ids of kept queries, oldest first."""
        statement = sa.select(_C.id).where(*_build_conditions(which)).order_by(_C.id).limit(limit)
        with self._store._read() as connection:
            return list(connection.execute(statement).scalars())

    def iterate(self, which: PoolFilter) -> Iterator[tuple[list[KeptQuery], UnitVectors]]:
        """Blocks of kept queries with their vectors, float32 [n, d], oldest first, as of the first block."""
        statement = (
            _COLUMNS.add_columns(_C.vector).where(*_build_conditions(which)).order_by(_C.id)
        ).execution_options(yield_per=READ_BLOCK)
        with self._store._read() as connection:
            for block in connection.execute(statement).partitions():
                check_time()
                vectors = np.frombuffer(b"".join(row.vector for row in block), dtype="<f4")
                yield [_to_query(row) for row in block], vectors.reshape(len(block), -1)

    def list_groups(self, status: Status, limit: int, offset: int) -> list[Group]:
        """Groups of unknown queries of one status, the largest first."""
        size = sa.func.count().label("size")
        statement = (
            sa.select(_C.group_id, size, sa.func.min(_C.at), sa.func.max(_C.at))
            .where(_C.status == status, _C.group_id.is_not(None), _C.decision == "unknown")
            .group_by(_C.group_id)
            .order_by(size.desc(), _C.group_id)
            .limit(limit)
            .offset(offset)
        )
        with self._store._read() as connection:
            return [Group(*row) for row in connection.execute(statement)]

    def read_members(self, groups: Sequence[str], status: Status, limit: int) -> dict[str, list[KeptQuery]]:
        """The newest members of groups, at most ``limit`` of each."""
        number = sa.func.row_number().over(partition_by=_C.group_id, order_by=_C.id.desc()).label("number")
        numbered = (
            sa.select(_C.id.label("member"), number)
            .where(_C.group_id.in_(groups), _C.status == status, _C.decision == "unknown")
            .subquery()
        )
        statement = (
            _COLUMNS.join(numbered, numbered.c.member == _C.id)
            .where(numbered.c.number <= limit)
            .order_by(_C.id.desc())
        )
        members: dict[str, list[KeptQuery]] = {group: [] for group in groups}
        with self._store._read() as connection:
            for row in connection.execute(statement):
                members[row.group_id].append(_to_query(row))
        return members

    def count_offered(self) -> dict[str, int]:
        """How many open queries match each label now, the most first."""
        count = sa.func.count()
        statement = (
            sa.select(_C.offered, count)
            .where(_C.status == "open", _C.offered.is_not(None))
            .group_by(_C.offered)
            .order_by(count.desc(), _C.offered)
        )
        with self._store._read() as connection:
            return {label: int(n) for label, n in connection.execute(statement)}

    def list_changes(self, limit: int) -> list[Change]:
        """The last changes that can be undone, newest first."""
        newest = sa.func.substr(_C.change, sa.func.length(_C.change) - 19)
        statement = (
            sa.select(_C.change, sa.func.max(_C.name), sa.func.count())
            .where(_C.change.is_not(None))
            .group_by(_C.change)
            .order_by(newest.desc())
            .limit(limit)
        )
        with self._store._read() as connection:
            return [Change(*row) for row in connection.execute(statement)]

    def list_changed(self, change: str) -> list[KeptQuery]:
        """The queries whose last change this is."""
        with self._store._read() as connection:
            statement = _COLUMNS.where(_C.change == change).order_by(_C.id)
            return [_to_query(row) for row in connection.execute(statement)]

    def list_to_review(self, limit: int) -> list[KeptQuery]:
        """Open queries to judge: those whose verdict speaks against the decision, then the nearest to the
        threshold that nobody has judged.
        """
        disputed = (_C.reviews == 1) & sa.or_(
            (_C.decision == "match") & (_C.verdict == "different"),
            (_C.decision == "unknown") & (_C.verdict == "same"),
        )
        unjudged = (_C.reviews == 0) & _C.score.is_not(None)
        order = (sa.case((disputed, 0), else_=1), sa.func.abs(_C.score - _C.threshold), _C.id)
        statement = _COLUMNS.where(
            _C.status == "open", _C.candidate.is_not(None), sa.or_(disputed, unjudged)
        ).order_by(*order)
        with self._store._read() as connection:
            return [_to_query(row) for row in connection.execute(statement.limit(limit))]

    def set_groups(self, groups: Mapping[str, str | None], dropped: Mapping[str, tuple[str, str]]) -> None:
        """Put queries into groups by id; ``dropped`` are those that join what a person has dropped.

        Args:
            groups: of each query its group, or None.
            dropped: of each open query its group and the change by which that was dropped, whose
                undoing brings it back as well.
        """
        grouping = (
            UNKNOWNS.update()
            .where(_C.id == sa.bindparam("which"), _C.status != "enrolled")
            .values(group_id=sa.bindparam("new_group"))
        )
        dropping = (
            UNKNOWNS.update()
            .where(_C.id == sa.bindparam("which"), _C.status == "open")
            .values(
                group_id=sa.bindparam("new_group"),
                status="dropped",
                pin=sa.bindparam("new_group"),
                change=sa.bindparam("by"),
                before=JOINED,
            )
        )
        with self._writing(), self._store._begin_write() as connection:
            if groups:
                rows = [{"which": query_id, "new_group": group} for query_id, group in groups.items()]
                connection.execute(grouping, rows)
            if dropped:
                connection.execute(
                    dropping,
                    [{"which": name, "new_group": group, "by": by} for name, (group, by) in dropped.items()],
                )

    def set_offered(self, offered: Mapping[str, str | None]) -> None:
        """Note by id which label open queries match now."""
        statement = (
            UNKNOWNS.update()
            .where(_C.id == sa.bindparam("which"), _C.status == "open")
            .values(offered=sa.bindparam("offer"))
        )
        rows = [{"which": query_id, "offer": label} for query_id, label in offered.items()]
        if rows:
            with self._writing(), self._store._begin_write() as connection:
                connection.execute(statement, rows)

    def withdraw_offers(self, labels: Sequence[str]) -> None:
        """Offer these labels to nobody any more."""
        with self._writing(), self._store._begin_write() as connection:
            connection.execute(UNKNOWNS.update().where(_C.offered.in_(labels)).values(offered=None))

    def arrange(
        self,
        changes: Sequence[tuple[Sequence[str], Mapping[str, str | None]]],
        change: str,
        order: WriteOrder | None = None,
    ) -> int:
        """Change open queries, each list of ids in its way, so that it can be undone; returns how many."""
        with self._writing(), self._store._begin_write(order) as connection:
            return sum(change_queries(connection, ids, change, **new) for ids, new in changes)

    def undo(self, change: str, order: WriteOrder | None = None) -> int:
        """Put queries back to what they were before a change; returns how many."""
        with self._writing(), self._store._begin_write(order) as connection:
            return undo_change(connection, change)

    def delete(self, which: PoolFilter, order: WriteOrder | None = None) -> int:
        """Erase kept queries, with vectors, metadata and thumbnails; returns how many."""
        with self._writing(), self._store._begin_write(order) as connection:
            if which.ids is None:
                return int(connection.execute(UNKNOWNS.delete().where(*_build_conditions(which))).rowcount)
            gone = 0
            for part in split_ids(sorted(set(which.ids))):
                conditions = _build_conditions(which._replace(ids=part))
                gone += connection.execute(UNKNOWNS.delete().where(*conditions)).rowcount
            return int(gone)


_COLUMNS = sa.select(
    *(column for column in _C if column.name not in ("vector", "thumbnail", "before")),
    _C.thumbnail.is_not(None).label("has_thumbnail"),
)


def _build_conditions(which: PoolFilter) -> list[sa.ColumnElement[bool]]:
    conditions: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
        "ids": _C.id.in_,
        "status": lambda value: _C.status == value,
        "decision": lambda value: _C.decision == value,
        "group": lambda value: _C.group_id == value,
        "grouped": lambda value: _C.group_id.is_not(None) if value else _C.group_id.is_(None),
        "offered": lambda value: _C.offered == value,
        "since": lambda value: _C.at >= value,
        "until": lambda value: _C.at < value,
        "before": lambda value: _C.id < value,
    }
    given = which._asdict().items()
    return [conditions[name](value) for name, value in given if value is not None]


def _to_row(query: KeptQuery) -> dict[str, Any]:
    return {
        "id": query.id,
        "at": query.at,
        "vector": np.ascontiguousarray(query.vector, dtype="<f4").tobytes(),
        "decision": query.decision,
        "candidate": query.candidate,
        "label": query.label,
        "score": query.score,
        "threshold": query.threshold,
        "operating_point": query.operating_point,
        "subject": query.subject,
        "metadata": json.dumps(dict(query.metadata), ensure_ascii=False, allow_nan=False),
        "status": query.status,
        "thumbnail": query.thumbnail,
    }


def _to_query(row: Any) -> KeptQuery:
    values = dict(row._mapping)
    vector, thumbnail = values.get("vector"), values.get("thumbnail")
    values |= {
        "group": values.pop("group_id"),
        "vector": np.frombuffer(b"" if vector is None else vector, dtype="<f4"),
        "thumbnail": None if thumbnail is None else bytes(thumbnail),
        "metadata": json.loads(values["metadata"]),
        "has_thumbnail": bool(values["has_thumbnail"]),
    }
    return KeptQuery(**values)
