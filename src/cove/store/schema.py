"""The tables. Times are unix seconds as double precision; nothing here is particular to one database."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LIVE_AND_NAMED = text("name IS NOT NULL AND status <> 'deleted'")
"""A query that says it in these words finds a name by its index."""

LIVE_WITH_SECRETS = text("secrets IS NOT NULL AND status <> 'deleted'")
"""As above, for sandboxes that have secrets."""

_ABOUT_A_SANDBOX = text("sandbox_id IS NOT NULL")
_LEASED = text("client_lease <> ''")

SANDBOXES = Table(
    "sandboxes",
    METADATA,
    Column("id", String(18), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("template_id", String(20), nullable=False),
    Column("template_name", String(200), nullable=False),
    Column("template_digest", String(128), nullable=False),
    Column("isolation", String(16), nullable=False),
    Column("vcpu", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("pids", Integer, nullable=False),
    Column("open_files", Integer, nullable=False),
    Column("internet_access", Boolean, nullable=False),
    Column("region", String(100)),
    Column("timeout_seconds", Integer),
    Column("created_at", Double, nullable=False),
    Column("deadline", Double),
    Column("ended_at", Double),
    Column("end_reason", String(32)),
    Column("end_limit", String(64), nullable=False, server_default=""),
    Column("host_id", String(64), nullable=False),
    Column("lease_epoch", Integer, nullable=False),
    Column("created_by", String(64), nullable=False, server_default=""),
    Column("organization_id", Integer, nullable=False, server_default="0"),
    Column("name", String(63)),
    Column("client_lease", String(64), nullable=False, server_default=""),
    Column("more_limits", JSON(none_as_null=True)),
    Column("unenforced", JSON(none_as_null=True)),
    Column("network", JSON(none_as_null=True)),
    Column("preview_access", String(16)),
    Column("preview_epoch", Integer, nullable=False, server_default="0"),
    Column("secrets", JSON(none_as_null=True)),
    Index(None, "namespace", "created_at", "id"),
    Index(None, "status", "ended_at"),
    Index(
        "uq_sandboxes_live_name",
        "namespace",
        "client_lease",
        "name",
        unique=True,
        sqlite_where=LIVE_AND_NAMED,
        postgresql_where=LIVE_AND_NAMED,
    ),
    Index("ix_sandboxes_client_lease", "client_lease", sqlite_where=_LEASED, postgresql_where=_LEASED),
    Index("ix_sandboxes_with_secrets", "namespace", sqlite_where=LIVE_WITH_SECRETS, postgresql_where=LIVE_WITH_SECRETS),
)

TEMPLATES = Table(
    "templates",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("display_name", String(200), nullable=False),
    Column("description", String(4000), nullable=False),
    Column("languages", JSON, nullable=False),
    Column("digest", String(128), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("namespace", String(64), nullable=False, server_default=""),
    Column("status", String(16), nullable=False, server_default="active"),
    Column("build", JSON),
    Column("build_log", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", String(12), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    Column("quota", JSON),
    Column("scopes", JSON),
    Column("prefix", String(16), nullable=False, server_default="hopx_live_"),
    Index(None, "namespace"),
)

NAMESPACES = Table(
    "namespaces",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("display_name", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("quota", JSON),
    sqlite_autoincrement=True,
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("namespace", String(64), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("hosts", JSON, nullable=False),
    Column("places", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

IDEMPOTENT_CREATES = Table(
    "idempotent_creates",
    METADATA,
    Column("scope", LargeBinary(32), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("sandbox_id", String(18), nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "namespace", "created_at"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("details", JSON, nullable=False),
    Column("outcome", String(64), nullable=False, server_default="ok"),
    Column("request_id", String(128), nullable=False, server_default=""),
    Column("address", String(64), nullable=False, server_default=""),
    Column("sandbox_id", String(18)),
    Index(None, "namespace", "id"),
    Index(None, "namespace", "action", "at"),
    Index(None, "at"),
    Index(
        "ix_events_sandbox_id",
        "sandbox_id",
        "id",
        sqlite_where=_ABOUT_A_SANDBOX,
        postgresql_where=_ABOUT_A_SANDBOX,
    ),
)

EVENT_RETENTION = Table(
    "event_retention",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("older_than", Double),
)
"""One row. While retention is at work it names what may be dropped; triggers look at it (migration 0006)."""

ASYNC_EXECUTIONS = Table(
    "async_executions",
    METADATA,
    Column("id", String(80), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("sandbox_id", String(18), nullable=False),
    Column("status", String(16), nullable=False),
    Column("delivery", String(16), nullable=False),
    Column("language", String(16), nullable=False),
    Column("timeout_seconds", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("exit_code", Integer),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Double),
    Column("deliver_until", Double),
    Column("delivered_at", Double),
    Column("last_error", String(500)),
    Column("program", LargeBinary),
    Column("callback", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("result_bytes", Integer, nullable=False),
    Index(None, "namespace", "created_at", "id"),
    Index(None, "namespace", "delivery", "ended_at"),
    Index(None, "sandbox_id", "created_at", "id"),
    Index(None, "delivery", "ended_at"),
)
