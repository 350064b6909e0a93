"""Namespaces with numbers and quotas, creates that can be repeated, and who made a sandbox."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, add the columns, and number the namespaces that there are."""
    _namespaces()
    _idempotent_creates()
    op.add_column("api_keys", sa.Column("quota", sa.JSON))
    op.add_column("sandboxes", sa.Column("created_by", sa.String(64), nullable=False, server_default=""))
    op.add_column("sandboxes", sa.Column("organization_id", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_events_namespace_action_at", "events", ["namespace", "action", "at"])
    op.execute(
        "UPDATE sandboxes SET organization_id = (SELECT id FROM namespaces WHERE name = sandboxes.namespace)"
        " WHERE namespace IN (SELECT name FROM namespaces)"
    )


def _namespaces() -> None:
    op.create_table(
        "namespaces",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("quota", sa.JSON),
        sa.UniqueConstraint("name", name="uq_namespaces_name"),
        sqlite_autoincrement=True,
    )
    # The first one belongs to who runs the server, and has the number 1 everywhere.
    first = sa.text(
        "INSERT INTO namespaces (name, display_name, created_at)"
        " SELECT 'default', 'default', COALESCE((SELECT MIN(created_at) FROM api_keys), :now)"
    )
    op.execute(first.bindparams(now=time.time()))
    op.execute(
        "INSERT INTO namespaces (name, display_name, created_at)"
        " SELECT namespace, namespace, MIN(created_at) FROM"
        " (SELECT namespace, created_at FROM api_keys UNION ALL SELECT namespace, created_at FROM sandboxes) AS seen"
        " WHERE namespace <> 'default' GROUP BY namespace ORDER BY MIN(created_at), namespace"
    )


def _idempotent_creates() -> None:
    op.create_table(
        "idempotent_creates",
        sa.Column("scope", sa.LargeBinary(32), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("sandbox_id", sa.String(18), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_idempotent_creates"),
    )
    op.create_index("ix_idempotent_creates_namespace_created_at", "idempotent_creates", ["namespace", "created_at"])
