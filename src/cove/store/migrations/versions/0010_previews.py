"""Who may reach programs in a sandbox."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; for sandboxes that exist the server's setting counts."""
    op.add_column("sandboxes", sa.Column("preview_access", sa.String(16)))
    op.add_column("sandboxes", sa.Column("preview_epoch", sa.Integer, nullable=False, server_default="0"))
