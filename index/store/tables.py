"""The tables of the item store, in a form that all databases share."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from index.store.databases import DATABASES
from index.store.databases.database import Database

ROWS_AT_ONCE = 1_000
METADATA = sa.MetaData()


def build_column_types(databases: Sequence[type[Database]]) -> tuple[sa.Text, sa.BigInteger]:
    """Types of ids, compared by code point, and of counters, each with a variant for every dialect.

    Databases of one dialect share the types of the first.
    """
    ids, counters = sa.Text(), sa.BigInteger()
    for database in {database.dialect: database for database in reversed(databases)}.values():
        ids = ids.with_variant(database.id_type, database.dialect)
        counters = counters.with_variant(database.counter_type, database.dialect)
    return ids, counters


ID, COUNTER = build_column_types(DATABASES)


def _make_text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    _make_text("label"),
    _make_text("metadata"),  # JSON
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float32, little-endian
    _make_text("model_hash"),
    sa.Column("sequence", sa.BigInteger, nullable=False, index=False),  # rises with every write
    sa.Index("items_by_sequence", "sequence"),
)
DELETIONS = sa.Table(
    "deletions",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)
FIELDS = sa.Table(
    "fields",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    _make_text("kind"),
    sa.Column("n_items", sa.BigInteger, nullable=False, server_default="0"),  # that have the field
)
POINTS = sa.Table(
    "operating_points", METADATA, sa.Column("id", sa.Text, primary_key=True), _make_text("document")
)
SETTINGS = sa.Table("settings", METADATA, sa.Column("name", sa.Text, primary_key=True), _make_text("value"))
FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("a", ID, index=False),  # the items it is about, as far as they are items
    sa.Column("b", ID, index=False),
    _make_text("document"),
    sa.Column("subject", ID, index=False),  # the decision or pair that was judged: one verdict of each
    sa.Column("not_label", sa.Text),  # of a correction: the class that the query is not of
    sa.Index("feedback_by_a", "a"),
    sa.Index("feedback_by_b", "b"),
    sa.Index("feedback_by_subject", "subject", unique=True),
)
REPORTS = sa.Table(
    "reports",
    METADATA,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    _make_text("document"),
)
THUMBNAILS = sa.Table(
    "thumbnails",
    METADATA,
    sa.Column("id", ID, primary_key=True),  # of an item: both go together
    sa.Column("content", sa.LargeBinary, nullable=False),
)
UNKNOWNS = sa.Table(
    "unknowns",  # queries that were kept; an id begins with the time, so that ids are in its order
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),  # seconds since 1970
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float32, little-endian
    _make_text("decision"),
    sa.Column("candidate", ID, index=False),  # the item that was the best candidate
    sa.Column("label", sa.Text),  # and its class
    sa.Column("score", sa.Double),
    sa.Column("threshold", sa.Double, nullable=False),
    _make_text("operating_point"),
    sa.Column("subject", ID, index=False),  # the decision, as in feedback
    _make_text("metadata"),  # JSON
    _make_text("status"),  # open, enrolled, dropped
    sa.Column("group_id", ID, index=False),
    sa.Column("pin", ID, index=False),  # the group that a person put it in
    sa.Column("item", ID, index=False),  # the item that it became
    sa.Column("name", sa.Text),  # under this label
    sa.Column("offered", sa.Text),  # the label that it matches now
    sa.Column("verdict", sa.Text),
    sa.Column("reviews", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("change", ID, index=False),  # the last thing that was done to it
    sa.Column("before", sa.Text),  # and what was before, as JSON
    sa.Column("thumbnail", sa.LargeBinary),
    sa.Index("unknowns_by_candidate", "candidate"),
    sa.Index("unknowns_by_item", "item"),
    sa.Index("unknowns_by_subject", "subject"),
    sa.Index("unknowns_by_group", "group_id"),
    sa.Index("unknowns_by_change", "change"),
)
AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    _make_text("line"),  # JSON; goes once the audit log's file holds it
)

REPLIES = sa.Table(
    "replies",  # to writes with an idempotency key
    METADATA,
    sa.Column("key", ID, primary_key=True),
    _make_text("request"),  # a hash of what was asked
    sa.Column("at", sa.Double, nullable=False),  # seconds since 1970
    sa.Column("status", sa.BigInteger),  # of the answer, once there is one
    sa.Column("body", sa.LargeBinary),
    sa.Index("replies_by_at", "at"),
)
JOBS = sa.Table(
    "jobs",  # that any process may do
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),  # seconds since 1970
    _make_text("kind"),
    _make_text("key"),  # those of one key are done one after the other
    _make_text("parameters"),  # JSON
    _make_text("status"),
    sa.Column("attempts", sa.BigInteger, nullable=False),  # processes that have begun it
    _make_text("document"),  # JSON
)
SERIES = sa.Table(
    "series",  # counts of the service, by period and kind
    METADATA,
    sa.Column("resolution", sa.BigInteger, primary_key=True, autoincrement=False),  # seconds
    sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),  # seconds since 1970
    sa.Column("kind", ID, primary_key=True),
    _make_text("document"),  # JSON
)
ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("started", sa.BigInteger, nullable=False),  # seconds since 1970
    _make_text("document"),  # JSON
)


def copy_tables(
    source: sa.Connection, target: sa.Connection, tables: Sequence[sa.Table] = tuple(METADATA.sorted_tables)
) -> None:
    """Replace the rows of one database by those of another; counters are numbered again."""
    for table in tables:
        target.execute(table.delete())
        keys = [column for column in table.primary_key if column.type is not COUNTER]
        columns = [column for column in table.columns if column.type is not COUNTER]
        ordered = sa.select(*columns).order_by(*(keys or table.primary_key))
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(ordered)
        for block in rows.mappings().partitions():
            target.execute(table.insert(), [dict(row) for row in block])
