"""Secrets of namespaces in the database. Values come and go sealed."""

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cove.models.errors import error
from cove.models.secrets import SecretPlace
from cove.models.stored import StoredSecret
from cove.store.schema import SECRETS

_COLUMNS = SECRETS.c
_ONE = (_COLUMNS.namespace == bindparam("owner"), _COLUMNS.name == bindparam("wanted"))
_GET = select(SECRETS).where(*_ONE)
_SEALED = select(_COLUMNS.sealed).where(*_ONE).with_for_update(read=True)


class SqlSecretRepository:
    """Implements the core's `SecretRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, secret: StoredSecret) -> None:
        """Insert a row; CONFLICT when the name is taken."""
        try:
            self._connection.execute(insert(SECRETS), _values(secret))
        except IntegrityError as failure:
            raise error("CONFLICT", f"The secret {secret.name!r} was made by another request.") from failure

    def replace(self, secret: StoredSecret) -> None:
        """Change the row of the same name."""
        owner, name = _COLUMNS.namespace == secret.namespace, _COLUMNS.name == secret.name
        self._connection.execute(update(SECRETS).where(owner, name).values(_values(secret)))

    def get(self, namespace: str, name: str) -> StoredSecret | None:
        """The row."""
        row = self._connection.execute(_GET, {"owner": namespace, "wanted": name}).mappings().first()
        return None if row is None else _secret(row)

    def sealed(self, namespace: str, name: str) -> bytes | None:
        """Its value, sealed, which does not change until the transaction ends; None: there is no such secret."""
        return self._connection.execute(_SEALED, {"owner": namespace, "wanted": name}).scalar()

    def all(self, namespace: str) -> tuple[StoredSecret, ...]:
        """Those of a namespace, by name."""
        rows = self._connection.execute(
            select(SECRETS).where(_COLUMNS.namespace == namespace).order_by(_COLUMNS.name)
        ).mappings()
        return tuple(map(_secret, rows))

    def count(self, namespace: str) -> int:
        """How many a namespace has."""
        wanted = select(func.count()).select_from(SECRETS).where(_COLUMNS.namespace == namespace)
        return self._connection.execute(wanted).scalar_one()

    def remove(self, namespace: str, name: str) -> None:
        """Drop a row."""
        self._connection.execute(delete(SECRETS).where(_COLUMNS.namespace == namespace, _COLUMNS.name == name))


def _values(secret: StoredSecret) -> dict[str, object]:
    return {
        "namespace": secret.namespace,
        "name": secret.name,
        "sealed": secret.sealed,
        "hosts": list(secret.hosts),
        "places": [place.value for place in secret.places],
        "created_at": secret.created_at,
        "updated_at": secret.updated_at,
    }


def _secret(row: RowMapping) -> StoredSecret:
    return StoredSecret(
        namespace=row["namespace"],
        name=row["name"],
        sealed=row["sealed"],
        hosts=tuple(row["hosts"]),
        places=tuple(map(SecretPlace, row["places"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
