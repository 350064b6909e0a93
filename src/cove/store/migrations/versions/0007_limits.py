"""Limits of a sandbox beyond the first five, and those that its host does not enforce."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what exists has the defaults."""
    op.add_column("sandboxes", sa.Column("more_limits", sa.JSON))
    op.add_column("sandboxes", sa.Column("unenforced", sa.JSON))
