"""Items with their vectors, deletions, fields, operating points and settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import ID

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", ID, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("model_hash", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_index("items_by_sequence", "items", ["sequence"])
    op.create_table(
        "deletions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "fields", sa.Column("name", sa.Text, primary_key=True), sa.Column("kind", sa.Text, nullable=False)
    )
    op.create_table(
        "operating_points",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "settings", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
