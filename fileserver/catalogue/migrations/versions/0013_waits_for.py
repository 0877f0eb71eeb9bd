"""Which agent a paused transfer waits for."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add a column."""
    op.add_column("transfers", sa.Column("waits_for", sa.String(length=96), nullable=False, server_default=""))
