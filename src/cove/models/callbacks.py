"""The headers of a webhook: which ones its receiver's owner may add, and how a signature is made.

A receiver checks a delivery by computing `sign(secret, timestamp, body)` over the raw body and the value of
`X-HopX-Timestamp`, and comparing it with `X-HopX-Signature` in constant time.
"""

import hashlib
import hmac
import re
from typing import Annotated

from pydantic import AfterValidator

TIMESTAMP_HEADER = "X-HopX-Timestamp"
SIGNATURE_HEADER = "X-HopX-Signature"
DELIVERY_HEADER = "X-HopX-Delivery"

MAX_HEADERS = 50
MAX_HEADERS_BYTES = 16 * 1024

# RFC 9110 §5.6.2 (token) and §5.5 (field value, visible ASCII only: bytes above have no agreed meaning).
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?\Z")
_RESERVED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_PREFIXES = ("x-hopx-", "proxy-")


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return `headers` unchanged.

    Raises:
        ValueError: a name or value that cannot be sent as it is, one that would change how the request is framed or
            where it goes, one that belongs to the delivery itself, or too much.
    """
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} callback headers are accepted")
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADERS_BYTES:
        raise ValueError(f"callback headers take more than {MAX_HEADERS_BYTES} bytes together")
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.match(name):
            raise ValueError(f"{name[:40]!r} is not a header name (RFC 9110)")
        if not _VALUE.match(value):
            raise ValueError(f"the value of the header {name[:40]} is not printable ASCII without line breaks")
        lower = name.lower()
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"the header {name[:40]} cannot be set: the delivery sets it itself")
        if lower in seen:
            raise ValueError(f"the header {name[:40]} is given twice")
        seen.add(lower)
    return headers


CallbackHeaders = Annotated[dict[str, str], AfterValidator(check_headers)]


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the hexadecimal HMAC-SHA256 (RFC 2104) of timestamp and body, one after the other."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode("ascii") + body, hashlib.sha256).hexdigest()
