"""Names of sandboxes, the client leases that they belong to, what keys may do and what they begin with."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what exists has no name and no lease, and keys may do everything."""
    op.add_column("sandboxes", sa.Column("name", sa.String(63)))
    op.add_column("sandboxes", sa.Column("client_lease", sa.String(64), nullable=False, server_default=""))
    named = sa.text("name IS NOT NULL AND status <> 'deleted'")
    op.create_index(
        "uq_sandboxes_live_name",
        "sandboxes",
        ["namespace", "client_lease", "name"],
        unique=True,
        sqlite_where=named,
        postgresql_where=named,
    )
    leased = sa.text("client_lease <> ''")
    op.create_index(
        "ix_sandboxes_client_lease", "sandboxes", ["client_lease"], sqlite_where=leased, postgresql_where=leased
    )
    op.add_column("api_keys", sa.Column("scopes", sa.JSON))
    op.add_column("api_keys", sa.Column("prefix", sa.String(16), nullable=False, server_default="hopx_live_"))
