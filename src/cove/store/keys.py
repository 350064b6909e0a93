"""API keys in the database: their hashes, never the keys."""

from collections.abc import Mapping

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from cove.models.errors import error
from cove.models.stored import StoredKey
from cove.store.schema import API_KEYS

_GET = select(API_KEYS).where(API_KEYS.c.id == bindparam("key_id"))


class SqlKeyRepository:
    """Implements the core's `KeyRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: StoredKey) -> None:
        """Insert a row; CONFLICT when the id is taken."""
        values = {column.name: getattr(key, column.name) for column in API_KEYS.c}
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

    def touch(self, used: Mapping[str, float]) -> None:
        """Note when keys were last used (key id -> time)."""
        if not used:
            return
        change = update(API_KEYS).where(API_KEYS.c.id == bindparam("key")).values(last_used_at=bindparam("at"))
        self._connection.execute(change, [{"key": key, "at": at} for key, at in used.items()])


def _key(row: RowMapping) -> StoredKey:
    return StoredKey(**dict(row))
