"""Copies of logical files (until now each had one), and the routes of what a sync has copied."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table, and the one copy of every file; add two columns."""
    op.create_table(
        "copies",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.String(length=64), nullable=False),
        sa.Column("evidence", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("copies_by_generation", "copies", ["generation", "created"], unique=False)
    op.execute("INSERT INTO copies SELECT generation, generation, evidence, created FROM files")
    op.add_column("sync_items", sa.Column("route", sa.String(length=24), server_default="", nullable=False))
    op.add_column("sync_items", sa.Column("because", sa.Text(), server_default="", nullable=False))
