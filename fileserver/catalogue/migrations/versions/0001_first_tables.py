"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "file_parts",
        sa.Column("generation", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("checksums", sa.JSON(), nullable=False),
        sa.Column("owned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("generation", "number"),
    )
    op.create_table(
        "files",
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("generation", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.JSON(), nullable=True, quote=True),
        sa.Column("evidence", sa.String(length=16), nullable=False),
        sa.Column("crc64nvme", sa.String(length=16), nullable=True),
        sa.Column("part_count", sa.Integer(), nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("generation"),
    )
    op.create_table(
        "garbage",
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("plane", "key"),
    )
    op.create_table(
        "parts",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pieces", sa.JSON(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("crc64nvme", sa.String(length=16), nullable=True),
        sa.Column("other", sa.String(length=8), nullable=True),
        sa.Column("compared", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("version", sa.Text(), server_default="", nullable=False),
        sa.Column("done", sa.Boolean(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("transfer", "number"),
    )
    op.create_index("parts_by_state", "parts", ["transfer", "done"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("target"),
    )
    op.create_table(
        "segments",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first_part", sa.Integer(), nullable=False),
        sa.Column("last_part", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("transfer", "number"),
    )
    op.create_table(
        "sources",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("checksums", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("transfer", "number"),
    )
    op.create_index("sources_by_object", "sources", ["plane", "key"], unique=False)
    op.create_table(
        "steps",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("crc64nvme", sa.String(length=16), nullable=True),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("compared", sa.Boolean(), nullable=False),
        sa.Column("other", sa.String(length=8), nullable=True),
        sa.Column("quotes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("transfer", "part", "number"),
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wish", sa.String(length=8), server_default="", nullable=False),
        sa.Column("run", sa.Integer(), server_default="1", nullable=False),
        sa.Column("plan", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("outcome", sa.JSON(), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("request_id"),
    )
    op.create_index("transfers_by_age", "transfers", ["created", "id"], unique=False)
    op.create_table(
        "write_steps",
        sa.Column("write", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("crc64nvme", sa.String(length=16), nullable=False),
        sa.Column("reported", sa.String(length=16), nullable=True),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("write", "number"),
    )
    op.create_table(
        "writes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("plane", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("crc64nvme", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("writes_by_age", "writes", ["updated"], unique=False)
