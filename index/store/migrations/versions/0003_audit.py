"""Audit lines of the writes themselves, one verdict a decision, and how many items have each field."""

from __future__ import annotations

import json
from collections import Counter

import sqlalchemy as sa
from alembic import op

from index.store.tables import COUNTER, ID, ROWS_AT_ONCE

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table and the columns; the fields of the items there are counted, those of none forgotten."""
    op.create_table(
        "audit",
        sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
        sa.Column("line", sa.Text, nullable=False),
    )
    op.add_column("feedback", sa.Column("subject", ID))
    op.create_index("feedback_by_subject", "feedback", ["subject"], unique=True)
    op.add_column("fields", sa.Column("n_items", sa.BigInteger, nullable=False, server_default="0"))
    connection = op.get_bind()
    counts: Counter[str] = Counter()
    texts = sa.text("SELECT metadata FROM items WHERE metadata <> '{}'")
    for (metadata,) in connection.execute(texts.execution_options(yield_per=ROWS_AT_ONCE)):
        counts.update(name for name, value in json.loads(metadata).items() if value is not None)
    for name, count in counts.items():
        connection.execute(
            sa.text("UPDATE fields SET n_items = :count WHERE name = :name"), {"count": count, "name": name}
        )
    connection.execute(sa.text("DELETE FROM fields WHERE n_items = 0"))
