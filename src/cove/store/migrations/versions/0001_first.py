"""The first schema: sandboxes, templates, API keys, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _sandboxes()
    _templates()
    _api_keys()
    _events()


def _sandboxes() -> None:
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.String(18), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("template_id", sa.String(20), nullable=False),
        sa.Column("template_name", sa.String(200), nullable=False),
        sa.Column("template_digest", sa.String(128), nullable=False),
        sa.Column("isolation", sa.String(16), nullable=False),
        sa.Column("vcpu", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("disk_mb", sa.Integer, nullable=False),
        sa.Column("pids", sa.Integer, nullable=False),
        sa.Column("open_files", sa.Integer, nullable=False),
        sa.Column("internet_access", sa.Boolean, nullable=False),
        sa.Column("region", sa.String(100)),
        sa.Column("timeout_seconds", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deadline", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("end_reason", sa.String(32)),
        sa.Column("host_id", sa.String(64), nullable=False),
        sa.Column("lease_epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
    )
    op.create_index("ix_sandboxes_namespace_created_at_id", "sandboxes", ["namespace", "created_at", "id"])
    op.create_index("ix_sandboxes_status_ended_at", "sandboxes", ["status", "ended_at"])


def _templates() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("description", sa.String(4000), nullable=False),
        sa.Column("languages", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.UniqueConstraint("name", name="uq_templates_name"),
        sqlite_autoincrement=True,
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_namespace", "api_keys", ["namespace"])


def _events() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "events",
        sa.Column("id", number, primary_key=True, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("ix_events_namespace_id", "events", ["namespace", "id"])
    op.create_index("ix_events_at", "events", ["at"])
