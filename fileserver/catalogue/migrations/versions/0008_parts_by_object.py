"""Who needs an object is asked before it is deleted: an index of the objects of all copies."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add an index."""
    op.create_index("file_parts_by_object", "file_parts", ["plane", "key"], unique=False)
