"""Which process works on a transfer, and on each of its segments."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; whoever works on a transfer writes them at its next start."""
    op.add_column("transfers", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("segments", sa.Column("server", sa.String(64), nullable=False, server_default=""))
    op.add_column("segments", sa.Column("tries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("segments", sa.Column("begun", sa.Float()))
    op.add_column("segments", sa.Column("ended", sa.Float()))
