"""Lists in pages: a cursor names the last row seen, so rows that come and go shift nothing."""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass

from cove.core.principal import Principal
from cove.models.errors import CoveError, error
from cove.models.identifiers import is_sandbox_id
from cove.models.sandboxes import SandboxStatus
from cove.models.stored import SandboxQuery, StoredSandbox

MAX_PAGE = 1000
_MAX_CURSOR_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Page:
    """Some sandboxes, newest first, and the cursor of the next page if there is one."""

    sandboxes: tuple[StoredSandbox, ...]
    next_cursor: str | None


def query_of(
    principal: Principal,
    *,
    limit: int,
    cursor: str | None,
    status: SandboxStatus | None,
    region: str | None,
    name: str | None = None,
) -> SandboxQuery:
    """The query for a page; it asks for one row more, to learn whether another page follows.

    Raises:
        CoveError: INVALID_REQUEST for a bad cursor.
    """
    before = None if cursor is None else read_cursor(cursor, is_id=is_sandbox_id)
    return SandboxQuery(
        namespace=principal.namespace,
        client_lease=principal.client_lease or None,
        status=status,
        region=region,
        name=name,
        before=before,
        limit=min(limit, MAX_PAGE) + 1,
    )


def page_of(query: SandboxQuery, rows: tuple[StoredSandbox, ...]) -> Page:
    """The page that `rows`, the answer to `query`, make."""
    shown = rows[: query.limit - 1]
    more = len(rows) > len(shown) and bool(shown)
    return Page(shown, cursor_after(shown[-1].created_at, shown[-1].id) if more else None)


def cursor_after(created_at: float, row_id: str) -> str:
    """The cursor of what is older than a row."""
    return base64.urlsafe_b64encode(f"{created_at!r} {row_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str, *, is_id: Callable[[str], bool]) -> tuple[float, str]:
    """Creation time and id of the row that a cursor names.

    Raises:
        CoveError: INVALID_REQUEST when it is no cursor of rows with such ids.
    """
    try:
        text = base64.urlsafe_b64decode(cursor[:_MAX_CURSOR_CHARACTERS] + "=" * (-len(cursor) % 4)).decode()
        created, _, row_id = text.partition(" ")
        before = float(created)
    except (ValueError, binascii.Error):
        raise _bad_cursor() from None
    if not is_id(row_id) or not math.isfinite(before):
        raise _bad_cursor()
    return before, row_id


def _bad_cursor() -> CoveError:
    return error(
        "INVALID_REQUEST",
        "cursor: this is not a cursor of a page.",
        remedy="Send next_cursor as it was given, or none for the first page.",
        field="cursor",
    )
