"""Templates and their decimal ids in the database.

The column `name` is unique: that of a tenant's own template has the namespace and a slash before it, which no name has.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update

from cove.models.stored import StoredBuild, StoredTemplate
from cove.models.template_builds import BuildStatus
from cove.models.templates import TemplateManifest, derived_name
from cove.store.schema import TEMPLATES

# The log is as long as it may be, and read only when it is asked for.
_COLUMNS = [column for column in TEMPLATES.c if column.name != "build_log"]


class SqlTemplateRepository:
    """Implements the core's `TemplateRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[StoredTemplate, ...]:
        """Every template, by id."""
        result = self._connection.execute(select(*_COLUMNS).order_by(TEMPLATES.c.id))
        return tuple(_template(row) for row in result.mappings())

    def get(self, template_id: int) -> StoredTemplate | None:
        """One of them."""
        row = self._connection.execute(select(*_COLUMNS).where(TEMPLATES.c.id == template_id)).mappings().first()
        return None if row is None else _template(row)

    def put(self, manifest: TemplateManifest, *, at: float) -> StoredTemplate | None:
        """Insert or update the row of the manifest's name. A derived one that no row stands for is nobody's: None."""
        if manifest.base:
            return self._put_derived(manifest, at=at)
        values: dict[str, Any] = {
            "display_name": manifest.display_name,
            "description": manifest.description,
            "languages": list(manifest.languages),
            "digest": manifest.digest,
            "updated_at": at,
        }
        changed = self._change(TEMPLATES.c.name == manifest.name, values)
        return changed or self._insert({**values, "name": manifest.name, "created_at": at})

    def add(self, *, namespace: str, name: str, build: StoredBuild) -> StoredTemplate:
        """A tenant's new template, whose build begins.

        Raises:
            CoveError: CONFLICT when the tenant has one of that name.
        """
        return self._insert(
            {
                "name": f"{namespace}/{name}",
                "namespace": namespace,
                "display_name": name,
                "description": "",
                "languages": [],
                "digest": "",
                "created_at": build.started_at,
                "updated_at": build.started_at,
                "status": BuildStatus.BUILDING,
                "build": asdict(build),
            }
        )

    def set_build(
        self, template_id: int, build: StoredBuild, status: BuildStatus, *, log: str
    ) -> StoredTemplate | None:
        """How far it is; the row after the change, or None when it was removed meanwhile."""
        values = {"build": asdict(build), "status": status, "build_log": log}
        return self._change(TEMPLATES.c.id == template_id, values)

    def build_log(self, template_id: int) -> str:
        """What the last build said."""
        chosen = select(TEMPLATES.c.build_log).where(TEMPLATES.c.id == template_id)
        return self._connection.execute(chosen).scalar() or ""

    def remove(self, template_id: int) -> None:
        """Drop the row of a tenant's own template. Its id is never given out again."""
        own = TEMPLATES.c.namespace != ""
        self._connection.execute(delete(TEMPLATES).where(TEMPLATES.c.id == template_id, own))

    def _put_derived(self, manifest: TemplateManifest, *, at: float) -> StoredTemplate | None:
        number = manifest.name.removeprefix(derived_name(0)[:-1])
        if not number.isdecimal():
            return None
        values = {"languages": list(manifest.languages), "digest": manifest.digest, "updated_at": at}
        return self._change(TEMPLATES.c.id == int(number), values)

    def _change(self, which: ColumnElement[bool], values: Mapping[str, Any]) -> StoredTemplate | None:
        change = update(TEMPLATES).where(which).values(dict(values)).returning(*_COLUMNS)
        row = self._connection.execute(change).mappings().first()
        return None if row is None else _template(row)

    def _insert(self, values: Mapping[str, Any]) -> StoredTemplate:
        fresh = insert(TEMPLATES).values(dict(values)).returning(*_COLUMNS)
        return _template(self._connection.execute(fresh).mappings().one())


def _template(row: RowMapping) -> StoredTemplate:
    return StoredTemplate(
        id=row["id"],
        name=row["name"].rpartition("/")[2],
        namespace=row["namespace"],
        status=BuildStatus(row["status"]),
        build=StoredBuild(**row["build"]) if row["build"] else None,
        display_name=row["display_name"],
        description=row["description"],
        languages=tuple(row["languages"]),
        digest=row["digest"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
