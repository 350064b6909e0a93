"""What a sandbox may reach."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; sandboxes that exist have no network."""
    op.add_column("sandboxes", sa.Column("network", sa.JSON))
