"""Secrets that programs use without seeing them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of those that are kept for namespaces, and the column of what sandboxes have."""
    op.create_table(
        "secrets",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("hosts", sa.JSON, nullable=False),
        sa.Column("places", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.add_column("sandboxes", sa.Column("secrets", sa.JSON))
    holds = sa.text("secrets IS NOT NULL AND status <> 'deleted'")
    op.create_index("ix_sandboxes_with_secrets", "sandboxes", ["namespace"], sqlite_where=holds, postgresql_where=holds)
