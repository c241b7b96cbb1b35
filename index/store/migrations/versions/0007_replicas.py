"""Answers to writes with an idempotency key, and jobs that any process may do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import ID

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "replies",
        sa.Column("key", ID, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("status", sa.BigInteger),
        sa.Column("body", sa.LargeBinary),
    )
    op.create_index("replies_by_at", "replies", ["at"])
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
