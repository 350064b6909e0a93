"""Which limit ended a sandbox."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of what has ended already nothing is known."""
    op.add_column("sandboxes", sa.Column("end_limit", sa.String(64), nullable=False, server_default=""))
