"""Looking at the audit log, on behalf of a principal."""

import base64
import binascii
import re
from dataclasses import dataclass, replace

from cove.core.pages import MAX_PAGE
from cove.core.principal import Principal
from cove.core.storage import Store
from cove.models.errors import error
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import EventQuery, StoredEvent

_CURSOR = re.compile(r"before ([0-9]{1,18})")
_MAX_CURSOR_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class AuditEntries:
    """Some entries, newest first, and the cursor of the next page if there may be one."""

    events: tuple[StoredEvent, ...]
    next_cursor: str | None


class AuditPages:
    """A tenant sees its own log. One that may enter any namespace sees all, unless the request names one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(
        self, principal: Principal, query: EventQuery, *, everything: bool, cursor: str | None = None
    ) -> AuditEntries:
        """One page of what `query` asks for; its namespace is the principal's.

        Args:
            everything: the request names no namespace.

        Raises:
            CoveError: FORBIDDEN for a key of a client lease; INVALID_REQUEST.
        """
        if principal.client_lease:
            raise error(
                "FORBIDDEN",
                "A key of a client lease does not see the audit log.",
                remedy="Use the key that the lease was opened with.",
            )
        _check_times(query)
        entering = principal.enters_any_namespace and everything
        asked = replace(
            query,
            namespace=EVERY_NAMESPACE if entering else principal.namespace,
            before=None if cursor is None else _read(cursor),
            limit=min(query.limit, MAX_PAGE),
        )
        if principal.is_confined:
            if asked.actor not in (None, principal.actor):
                return AuditEntries((), None)
            asked = replace(asked, actor=principal.actor)
        found = await self._store.read(lambda work: work.events.page(asked))
        return AuditEntries(found.events, None if found.before is None else _write(found.before))


def _check_times(query: EventQuery) -> None:
    if query.since is not None and query.until is not None and query.since > query.until:
        raise error(
            "INVALID_REQUEST",
            "since: it is later than until.",
            remedy="Swap the two, or leave one out.",
            field="since",
        )


def _write(event_id: int) -> str:
    return base64.urlsafe_b64encode(f"before {event_id}".encode()).decode().rstrip("=")


def _read(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor[:_MAX_CURSOR_CHARACTERS] + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        text = ""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise error(
            "INVALID_REQUEST",
            "cursor: this is not a cursor of a page.",
            remedy="Send next_cursor as it was given, or none for the first page.",
            field="cursor",
        )
    return int(found[1])
