"""What a credential needs to be let in where: the scope for each request, and the namespace that it enters."""

import re
from dataclasses import replace

from cove.core.namespace_access import NamespaceAccess, no_entry
from cove.core.principal import Principal
from cove.models.errors import error
from cove.models.scopes import EVERY_NAMESPACE, NAMESPACE_HEADER, Scope

_READING = frozenset({"GET", "HEAD"})
_AUDIT = "/v1/audit"
_ADMINISTRATION = re.compile(
    r"/auth/(?:api-keys|members|organization|profile)(?:/(?!switch\Z).*)?\Z"
    r"|/v1/templates/(?:build\Z|files/upload-link\Z)"
    r"|/v1/secrets/"
)
"""Beside these, whatever deletes a template."""
_TEMPLATES = "/v1/templates/"

_CALLING_BACK = frozenset({"/mcp", "/mcp/", "/api/v1/rpc"})
"""They do all that they do through this API again, with the caller's own rights, which are looked at there."""

_OF_MANY = re.compile(r"/v1/(?:sandboxes|executions)(?:/[^/]*(?:/usage|/network)?)?\Z|/v1/audit\Z")
"""What can be looked at without being in one namespace."""


def scope_needed(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None where any will do."""
    if path in _CALLING_BACK:
        return None
    if path == _AUDIT:
        return Scope.ADMIN
    if method in _READING:
        return Scope.READ
    if _ADMINISTRATION.match(path) or (method == "DELETE" and path.startswith(_TEMPLATES)):
        return Scope.ADMIN
    return Scope.EXEC


def check_scope(principal: Principal, method: str, path: str) -> None:
    """Refuse what the principal's key was not made for.

    Raises:
        CoveError: FORBIDDEN, with the missing `scope`.
    """
    needed = scope_needed(method, path)
    if needed is None or needed in principal.scopes:
        return
    raise error(
        "FORBIDDEN",
        f"This needs the scope {needed}, and the API key has: {', '.join(sorted(principal.scopes)) or 'none'}.",
        remedy=f"Use a key that has it: `cove keys create NAME --scope {needed}`.",
        scope=needed.value,
    )


async def entered(access: NamespaceAccess, principal: Principal, name: str, method: str, path: str) -> Principal:
    """The principal in the namespace that the request names.

    Raises:
        CoveError: FORBIDDEN, INVALID_REQUEST, RESOURCE_LIMIT_EXCEEDED.
    """
    reading = method in _READING
    if name != EVERY_NAMESPACE:
        return await access.enter(principal, name, making=not reading)
    if not principal.enters_any_namespace:
        raise no_entry(name)
    if not reading or not _OF_MANY.match(path):
        raise error(
            "INVALID_REQUEST",
            f"{method} {path[:100]!r} is about one namespace, not all.",
            remedy=f"Name one in {NAMESPACE_HEADER}; lists of sandboxes, executions and the audit log show all.",
            field=NAMESPACE_HEADER,
        )
    return replace(principal, namespace=EVERY_NAMESPACE)
