"""Asynchronous executions: what was asked for, what came of it, and how far its webhook has got."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLE = "async_executions"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("sandbox_id", sa.String(18), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("delivery", sa.String(16), nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("timeout_seconds", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("exit_code", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", sa.Double),
        sa.Column("deliver_until", sa.Double),
        sa.Column("delivered_at", sa.Double),
        sa.Column("last_error", sa.String(500)),
        sa.Column("program", sa.LargeBinary),
        sa.Column("callback", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("result_bytes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_async_executions"),
    )
    op.create_index("ix_async_executions_namespace_created_at_id", _TABLE, ["namespace", "created_at", "id"])
    op.create_index("ix_async_executions_namespace_delivery_ended_at", _TABLE, ["namespace", "delivery", "ended_at"])
    op.create_index("ix_async_executions_sandbox_id_created_at_id", _TABLE, ["sandbox_id", "created_at", "id"])
    op.create_index("ix_async_executions_delivery_ended_at", _TABLE, ["delivery", "ended_at"])
