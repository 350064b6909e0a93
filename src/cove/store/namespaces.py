"""Namespaces in the database."""

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cove.models.quotas import UNLIMITED, Quota
from cove.models.stored import StoredNamespace
from cove.store.schema import NAMESPACES

_GET = select(NAMESPACES).where(NAMESPACES.c.name == bindparam("wanted"))


class SqlNamespaceRepository:
    """Implements the core's `NamespaceRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> StoredNamespace | None:
        """The namespace, if a key was ever made in it, or somebody entered it."""
        row = self._connection.execute(_GET, {"wanted": name}).mappings().first()
        return None if row is None else _namespace(row)

    def all(self) -> tuple[StoredNamespace, ...]:
        """Every namespace, by number."""
        rows = self._connection.execute(select(NAMESPACES).order_by(NAMESPACES.c.id)).mappings()
        return tuple(_namespace(row) for row in rows)

    def count(self) -> int:
        """How many there are."""
        return self._connection.execute(select(func.count()).select_from(NAMESPACES)).scalar_one()

    def ensure(self, name: str, *, at: float) -> StoredNamespace:
        """The namespace, which gets the next number if it is new."""
        found = self.get(name)
        if found is not None:
            return found
        try:
            with self._connection.begin_nested():
                self._connection.execute(insert(NAMESPACES), {"name": name, "display_name": name, "created_at": at})
        except IntegrityError:
            # Another process was first; its row is the one.
            pass
        return self._require(name)

    def rename(self, name: str, display_name: str) -> StoredNamespace:
        """Change what people call it."""
        self._change(name, {"display_name": display_name})
        return self._require(name)

    def set_quota(self, name: str, quota: Quota) -> StoredNamespace:
        """Replace its ceilings."""
        self._change(name, {"quota": quota.model_dump(exclude_none=True) or None})
        return self._require(name)

    def _change(self, name: str, values: dict[str, object]) -> None:
        self._connection.execute(update(NAMESPACES).where(NAMESPACES.c.name == name).values(values))

    def _require(self, name: str) -> StoredNamespace:
        found = self.get(name)
        if found is None:
            raise LookupError(name)
        return found


def quota_of(stored: dict[str, int] | None) -> Quota:
    """A quota as it is stored: only the ceilings that there are."""
    return Quota.model_validate(stored) if stored else UNLIMITED


def _namespace(row: RowMapping) -> StoredNamespace:
    return StoredNamespace(
        id=row["id"],
        name=row["name"],
        display_name=row["display_name"],
        created_at=row["created_at"],
        quota=quota_of(row["quota"]),
    )
