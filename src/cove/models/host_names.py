"""One spelling for each host name, so that no two programs understand one differently.

Names that are compared with a policy pass through here first, whoever wrote them. What could be read in two ways is
refused, not repaired.
"""

import re
from ipaddress import ip_address

from cove.models.addresses import IpAddress, literal

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_MAX_NAME = 253
_SHOWN = 80


def canonical_host(text: str) -> str | IpAddress:
    """A host name in its one spelling (lower case ASCII, no final dot), or the address that it is written as.

    International names become their ASCII form (RFC 5891, with the mapping of UTS 46).

    Raises:
        ValueError: it is neither, with the reason in words.
    """
    address = _address(text)
    return canonical_name(text) if address is None else address


def canonical_name(text: str) -> str:
    """A host name in its one spelling.

    Raises:
        ValueError: it is none; addresses are none either.
    """
    name = _ascii(text).lower().removesuffix(".")
    if not name or len(name) > _MAX_NAME:
        raise ValueError(f"{_shown(text)} is not a host name: it must have 1 to {_MAX_NAME} characters")
    if not all(_LABEL.match(label) for label in name.split(".")):
        raise ValueError(f"{_shown(text)} is not a host name: only letters, digits and hyphens between single dots")
    if literal_or_odd(name):
        raise ValueError(f"{_shown(text)} is a number, not a host name")
    return name


def nameserver_place(text: str) -> tuple[str, int]:
    """Address and port of a name server, written as `192.0.2.1`, `192.0.2.1:5353` or `[2001:db8::1]:5353`.

    Raises:
        ValueError: it is none.
    """
    try:
        return str(ip_address(text)), 53
    except ValueError:
        address, _, port = text.rpartition(":")
        return str(ip_address(address.strip("[]"))), int(port)


def literal_or_odd(name: str) -> bool:
    """Whether some programs would take `name` for an address."""
    try:
        return literal(name) is not None
    except ValueError:
        return True


def _address(text: str) -> IpAddress | None:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return literal(bare.lower().removesuffix(".") if ":" not in bare else bare)
    except ValueError:
        raise ValueError(f"{_shown(text)} is not an address in its usual form, as 192.0.2.1 or 2001:db8::1") from None


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    # Here, because its tables take 10 ms and hardly any name needs them.
    import idna

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError(f"{_shown(text)} is not a valid international host name (RFC 5891)") from None


def _shown(text: str) -> str:
    return repr(text[:_SHOWN])
