"""Thumbnails of items."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import ID

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "thumbnails",
        sa.Column("id", ID, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
