"""What a credential may do, beside whose things it sees."""

from enum import StrEnum


class Scope(StrEnum):
    """Each is of its own: `admin` alone runs no code."""

    READ = "read"
    """See sandboxes, templates, files, figures."""

    EXEC = "exec"
    """Make, use and end sandboxes."""

    ADMIN = "admin"
    """Keys, limits, templates."""


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)
EVERY_NAMESPACE = "*"
"""In the place of a namespace's name: a key of the operator, which may enter any."""
NAMESPACE_HEADER = "X-Cove-Namespace"
"""Which namespace a request is about, where its key may enter several."""
