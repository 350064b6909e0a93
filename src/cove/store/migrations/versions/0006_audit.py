"""The audit log: what came of things and where they came from; a log that only grows.

Triggers refuse to change entries, and to drop any but those that retention names in `event_retention` within its own
transaction, none of them younger than a day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SQLITE = (
    """
    CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    # INSERT OR REPLACE would drop a row without firing the trigger of deletions.
    """
    CREATE TRIGGER events_are_not_replaced BEFORE INSERT ON events
    WHEN NEW.id IS NOT NULL AND EXISTS (SELECT 1 FROM events WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    """
    CREATE TRIGGER events_are_kept BEFORE DELETE ON events
    WHEN NOT EXISTS (SELECT 1 FROM event_retention WHERE OLD.at < older_than)
    BEGIN SELECT RAISE(ABORT, 'events are append-only: only retention drops old ones'); END
    """,
    """
    CREATE TRIGGER event_retention_is_for_old_events BEFORE UPDATE ON event_retention
    WHEN NEW.older_than > CAST(strftime('%s', 'now') AS REAL) - 86400
    BEGIN SELECT RAISE(ABORT, 'events are kept for a day at least'); END
    """,
    """
    CREATE TRIGGER event_retention_is_one_row BEFORE INSERT ON event_retention
    BEGIN SELECT RAISE(ABORT, 'event_retention has one row'); END
    """,
)

_POSTGRESQL = (
    """
    CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM event_retention WHERE OLD.at < older_than) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'events are append-only: only retention drops old ones';
    END $$
    """,
    """
    CREATE TRIGGER events_are_kept BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only()
    """,
    """
    CREATE TRIGGER events_are_not_emptied BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only()
    """,
    """
    CREATE FUNCTION event_retention_is_for_old_events() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'UPDATE' OR NEW.older_than > extract(epoch FROM now()) - 86400 THEN
            RAISE EXCEPTION 'events are kept for a day at least';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER event_retention_is_for_old_events BEFORE INSERT OR UPDATE ON event_retention
    FOR EACH ROW EXECUTE FUNCTION event_retention_is_for_old_events()
    """,
)


def upgrade() -> None:
    """Add columns and triggers; what exists went well, and where it came from is not known."""
    op.add_column("events", sa.Column("outcome", sa.String(64), nullable=False, server_default="ok"))
    op.add_column("events", sa.Column("request_id", sa.String(128), nullable=False, server_default=""))
    op.add_column("events", sa.Column("address", sa.String(64), nullable=False, server_default=""))
    op.add_column("events", sa.Column("sandbox_id", sa.String(18)))
    op.execute("UPDATE events SET sandbox_id = subject WHERE action LIKE 'sandbox.%' AND length(subject) = 18")
    about = sa.text("sandbox_id IS NOT NULL")
    op.create_index("ix_events_sandbox_id", "events", ["sandbox_id", "id"], sqlite_where=about, postgresql_where=about)
    op.create_table(
        "event_retention",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("older_than", sa.Double),
    )
    op.execute("INSERT INTO event_retention (id, older_than) VALUES (1, NULL)")
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if sqlite else _POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)
