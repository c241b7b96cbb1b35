"""Feedback and the history of reports; the newest sequence number as a setting that readers watch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import COUNTER, ID

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables; ``newest`` is the largest sequence number that anything has."""
    op.create_table(
        "feedback",
        sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
        sa.Column("a", ID),
        sa.Column("b", ID),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("feedback_by_a", "feedback", ["a"])
    op.create_index("feedback_by_b", "feedback", ["b"])
    op.create_table(
        "reports",
        sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO settings (name, value) SELECT 'newest', CAST(COALESCE(MAX(number), 0) AS TEXT) FROM ("
        "SELECT MAX(sequence) AS number FROM items UNION ALL SELECT MAX(sequence) FROM deletions "
        "UNION ALL SELECT CAST(value AS BIGINT) FROM settings WHERE name = 'sequence') AS numbers"
    )
