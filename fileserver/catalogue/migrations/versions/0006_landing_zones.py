"""Watches of landing zones, and what has arrived there."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "watches",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("action", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("next_look", sa.Float(), nullable=False),
        sa.Column("looker", sa.String(length=64), server_default="", nullable=False),
        sa.Column("look_until", sa.Float(), server_default="0", nullable=False),
        sa.Column("looking", sa.Float(), nullable=True),
        sa.Column("looked", sa.Float(), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "arrivals",
        sa.Column("watch", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("first_seen", sa.Float(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.Column("settled", sa.Float(), nullable=True),
        sa.Column("not_before", sa.Float(), server_default="0", nullable=False),
        sa.Column("started", sa.Float(), nullable=True),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("batch", sa.String(length=64), server_default="", nullable=False),
        sa.Column("taken", sa.Text(), nullable=True),
        sa.Column("loaded", sa.Text(), nullable=True),
        sa.Column("transfer", sa.String(length=64), nullable=True),
        sa.Column("owner", sa.String(length=64), server_default="", nullable=False),
        sa.Column("owned_until", sa.Float(), server_default="0", nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("watch", "key"),
    )
    op.create_index("arrivals_by_state", "arrivals", ["watch", "state"], unique=False)
    op.create_index("arrivals_by_batch", "arrivals", ["batch"], unique=False)
    op.create_index("arrivals_by_transfer", "arrivals", ["transfer"], unique=False)
