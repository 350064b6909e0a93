"""Templates and their decimal ids in the database."""

from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from cove.models.stored import StoredTemplate
from cove.models.templates import TemplateManifest
from cove.store.schema import TEMPLATES


class SqlTemplateRepository:
    """Implements the core's `TemplateRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[StoredTemplate, ...]:
        """Every template, by id."""
        result = self._connection.execute(select(TEMPLATES).order_by(TEMPLATES.c.id))
        return tuple(_template(row) for row in result.mappings())

    def put(self, manifest: TemplateManifest, *, at: float) -> StoredTemplate:
        """Insert or update the row of the manifest's name."""
        values: dict[str, Any] = {
            "display_name": manifest.display_name,
            "description": manifest.description,
            "languages": list(manifest.languages),
            "digest": manifest.digest,
            "updated_at": at,
        }
        change = update(TEMPLATES).where(TEMPLATES.c.name == manifest.name).values(values).returning(*TEMPLATES.c)
        row = self._connection.execute(change).mappings().first()
        if row is None:
            fresh = insert(TEMPLATES).values(**values, name=manifest.name, created_at=at).returning(*TEMPLATES.c)
            row = self._connection.execute(fresh).mappings().one()
        return _template(row)


def _template(row: RowMapping) -> StoredTemplate:
    return StoredTemplate(
        id=row["id"],
        name=row["name"],
        display_name=row["display_name"],
        description=row["description"],
        languages=tuple(row["languages"]),
        digest=row["digest"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
