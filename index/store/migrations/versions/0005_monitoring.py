"""Time series and alerts of the service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import ID

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "series",
        sa.Column("resolution", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", ID, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("id", ID, primary_key=True),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
