"""Templates that tenants build."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what exists is everybody's, and built."""
    op.add_column("templates", sa.Column("namespace", sa.String(64), nullable=False, server_default=""))
    op.add_column("templates", sa.Column("status", sa.String(16), nullable=False, server_default="active"))
    op.add_column("templates", sa.Column("build", sa.JSON))
    op.add_column("templates", sa.Column("build_log", sa.Text, nullable=False, server_default=""))
