"""The audit log, as `GET /v1/audit` shows it."""

from datetime import datetime
from typing import Any

from cove.models.base import Contract

AUDIT_PATH = "/v1/audit"


class AuditEntry(Contract):
    """Who did what to what.

    Attributes:
        id: grows from entry to entry.
        actor: id of an API key, or `system` for the server itself, `operator` for commands on its machine,
            `anonymous` for whoever showed no valid credential.
        action: for example `sandbox.created`.
        subject: id of what it was done to.
        outcome: `ok`, or the code of the error that was answered.
        request_id: of the request that it happened in.
        address: the client's, as the server saw it.
        details: small facts. With `count` the entry stands for so many like it, and is the first of them.
    """

    object: str = "audit_entry"
    id: int
    at: datetime
    namespace: str
    actor: str
    action: str
    subject: str
    outcome: str = "ok"
    request_id: str = ""
    address: str = ""
    details: dict[str, Any] = {}


class AuditPage(Contract):
    """One page, newest first. It may show fewer entries than were asked for, or none, while `has_more` is true:
    `next_cursor` says where to go on looking."""

    object: str = "list"
    data: tuple[AuditEntry, ...]
    has_more: bool = False
    next_cursor: str | None = None
    url: str = AUDIT_PATH
    request_id: str | None = None
