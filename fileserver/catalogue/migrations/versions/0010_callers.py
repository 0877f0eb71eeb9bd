"""Who asked for a transfer."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add one column; what was there before was asked for by the server's own kind."""
    op.add_column("transfers", sa.Column("caller", sa.String(length=512), nullable=False, server_default=""))
