"""Foreign objects that a user asked to destroy, and manifests that say an old name."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a column and a table."""
    op.add_column("garbage", sa.Column("version", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "stale_manifests",
        sa.Column("generation", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("generation"),
    )
