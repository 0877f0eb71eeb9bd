"""The files of an ingest, and what became of their objects."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "ingest_files",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="waiting", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("begun", sa.Float(), nullable=True),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("publication", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("owed", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("root", sa.String(length=64), server_default="", nullable=False),
        sa.Column("objects", sa.Integer(), server_default="0", nullable=False),
        sa.Column("through_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("native", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("verified", sa.String(length=16), server_default="", nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("transfer", "number"),
    )
    op.create_index("ingest_files_by_state", "ingest_files", ["transfer", "state"], unique=False)
    op.create_index("ingest_files_by_debt", "ingest_files", ["owed"], unique=False)
    op.create_table(
        "ingest_reports",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("transfer", "number", "page"),
    )
