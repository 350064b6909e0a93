"""Names of sandboxes and namespaces."""

import re

from cove.models.errors import error
from cove.models.sandboxes import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_MADE_UP = re.compile(r"sandbox-[0-9a-f]{8}")


def named(what: str, name: str) -> str:
    """`name`, if it is one.

    Args:
        what: the argument that holds it, for the message.

    Raises:
        InvalidRequest: it is not a name.
    """
    if _NAME.fullmatch(name) is None:
        raise error(
            "INVALID_REQUEST",
            f"{what} {name[:80]!r} is not a name: 1 to 63 letters, digits, hyphens and underscores, the first one a"
            " letter or digit.",
            remedy="Choose another name.",
            field=what,
        )
    return name


def made_up_by_client(name: str) -> bool:
    """Whether the Python client chose the name at random, as it does when its user names none: nobody will ask for
    that sandbox again once the client has stopped it."""
    return _MADE_UP.fullmatch(name) is not None
