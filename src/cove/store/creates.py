"""Creates that carried an idempotency key, in the database."""

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from cove.models.errors import error
from cove.models.stored import StoredCreate
from cove.store.schema import IDEMPOTENT_CREATES

_COLUMNS = IDEMPOTENT_CREATES.c
_NAMES = tuple(_COLUMNS.keys())
_INSERT = insert(IDEMPOTENT_CREATES)
_GET = select(IDEMPOTENT_CREATES).where(_COLUMNS.scope == bindparam("wanted"))


class SqlCreateRepository:
    """Implements the core's `CreateRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, create: StoredCreate) -> None:
        """Remember a create; CONFLICT when the scope is taken."""
        try:
            self._connection.execute(_INSERT, {name: getattr(create, name) for name in _NAMES})
        except IntegrityError as failure:
            raise error("CONFLICT", "This idempotency key is in use.") from failure

    def get(self, scope: bytes) -> StoredCreate | None:
        """The create that has this scope."""
        row = self._connection.execute(_GET, {"wanted": scope}).mappings().first()
        return None if row is None else StoredCreate(**dict(row))

    def scopes(self, *, since: float, limit: int) -> tuple[bytes, ...]:
        """The scopes of all that are not older, at most so many."""
        wanted = select(_COLUMNS.scope).where(_COLUMNS.created_at >= since).limit(limit)
        return tuple(self._connection.execute(wanted).scalars())

    def forget(self, scope: bytes) -> None:
        """Drop one."""
        self._connection.execute(delete(IDEMPOTENT_CREATES).where(_COLUMNS.scope == scope))

    def prune(self, *, before: float) -> int:
        """Drop those that are older; how many."""
        return self._connection.execute(delete(IDEMPOTENT_CREATES).where(_COLUMNS.created_at < before)).rowcount

    def trim(self, namespace: str, *, keep: int) -> int:
        """Drop the oldest of a namespace until so many are left; how many were dropped."""
        own = _COLUMNS.namespace == namespace
        newest = select(_COLUMNS.created_at).where(own).order_by(_COLUMNS.created_at.desc()).offset(keep).limit(1)
        last = self._connection.execute(newest).scalar()
        if last is None:
            return 0
        return self._connection.execute(delete(IDEMPOTENT_CREATES).where(own, _COLUMNS.created_at <= last)).rowcount
