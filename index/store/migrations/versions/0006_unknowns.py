"""Queries that were kept, and corrections among feedback; every piece of feedback can be named."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from index.store.tables import ID

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table and the column; feedback that had no subject is named by its number."""
    op.create_table(
        "unknowns",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("candidate", ID),
        sa.Column("label", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.Column("operating_point", sa.Text, nullable=False),
        sa.Column("subject", ID),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("group_id", ID),
        sa.Column("pin", ID),
        sa.Column("item", ID),
        sa.Column("name", sa.Text),
        sa.Column("offered", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("reviews", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("change", ID),
        sa.Column("before", sa.Text),
        sa.Column("thumbnail", sa.LargeBinary),
    )
    for name, column in (
        ("candidate", "candidate"),
        ("item", "item"),
        ("subject", "subject"),
        ("group", "group_id"),
        ("change", "change"),
    ):
        op.create_index(f"unknowns_by_{name}", "unknowns", [column])
    op.add_column("feedback", sa.Column("not_label", sa.Text))
    op.execute("UPDATE feedback SET subject = 'n' || CAST(number AS TEXT) WHERE subject IS NULL")
