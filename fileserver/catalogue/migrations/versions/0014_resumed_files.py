"""How often a file of an ingest was taken up again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add a column."""
    op.add_column("ingest_files", sa.Column("resumed", sa.Integer(), nullable=False, server_default="0"))
