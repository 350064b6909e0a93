"""API keys in the database: their hashes, never the keys."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from cove.models.errors import error
from cove.models.scopes import ALL_SCOPES, Scope
from cove.models.stored import StoredKey
from cove.store.namespaces import quota_of
from cove.store.schema import API_KEYS

_GET = select(API_KEYS).where(API_KEYS.c.id == bindparam("key_id"))


class SqlKeyRepository:
    """Implements the core's `KeyRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: StoredKey) -> None:
        """Insert a row; CONFLICT when the id is taken."""
        values = {column.name: getattr(key, column.name) for column in API_KEYS.c}
        values["quota"] = key.quota.model_dump(exclude_none=True) or None
        values["scopes"] = None if key.scopes == ALL_SCOPES else sorted(key.scopes)
        try:
            self._connection.execute(insert(API_KEYS), values)
        except IntegrityError as failure:
            raise error("CONFLICT", f"An API key with the id {key.id} exists already.") from failure

    def get(self, key_id: str) -> StoredKey | None:
        """The row, revoked and expired ones included."""
        row = self._connection.execute(_GET, {"key_id": key_id}).mappings().first()
        return None if row is None else _key(row)

    def all(self, *, namespace: str | None = None) -> tuple[StoredKey, ...]:
        """All keys, oldest first."""
        wanted = select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.id)
        if namespace is not None:
            wanted = wanted.where(API_KEYS.c.namespace == namespace)
        return tuple(_key(row) for row in self._connection.execute(wanted).mappings())

    def revoke(self, key_id: str, *, at: float) -> StoredKey | None:
        """Mark a key that is not revoked yet; the row after the change, or None."""
        change = update(API_KEYS).where(API_KEYS.c.id == key_id, API_KEYS.c.revoked_at.is_(None))
        result = self._connection.execute(change.values(revoked_at=at).returning(*API_KEYS.c))
        row = result.mappings().first()
        return None if row is None else _key(row)

    def rename(self, key_id: str, name: str) -> StoredKey | None:
        """Change its name; the row after the change, or None."""
        change = update(API_KEYS).where(API_KEYS.c.id == key_id).values(name=name).returning(*API_KEYS.c)
        row = self._connection.execute(change).mappings().first()
        return None if row is None else _key(row)

    def count(self, *, namespace: str) -> int:
        """How many keys of a namespace are kept, in force or not."""
        wanted = select(func.count()).where(API_KEYS.c.namespace == namespace)
        return self._connection.execute(wanted).scalar_one()

    def prune(self, *, over_before: float) -> int:
        """Drop keys that were revoked or expired before then; how many."""
        over = or_(API_KEYS.c.revoked_at < over_before, API_KEYS.c.expires_at < over_before)
        return self._connection.execute(delete(API_KEYS).where(over)).rowcount

    def touch(self, used: Mapping[str, float]) -> None:
        """Note when keys were last used (key id -> time)."""
        if not used:
            return
        change = update(API_KEYS).where(API_KEYS.c.id == bindparam("key")).values(last_used_at=bindparam("at"))
        self._connection.execute(change, [{"key": key, "at": at} for key, at in used.items()])


def _key(row: RowMapping) -> StoredKey:
    values: dict[str, Any] = dict(row)
    values["quota"] = quota_of(values["quota"])
    stored: list[str] | None = values["scopes"]
    values["scopes"] = ALL_SCOPES if stored is None else frozenset(map(Scope, stored))
    return StoredKey(**values)
