"""For receivers of webhooks: whether a request really came from the server.

    from cove.sdk import webhooks

    delivery = webhooks.verify(body, headers, secret)
    print(delivery.execution_id, delivery.status)

A delivery can come more than once, with the same `X-HopX-Delivery` and `execution_id`.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping

from pydantic import ConfigDict

from cove.models.base import Contract
from cove.models.errors import CoveError, error
from cove.sdk._failures import parse

__all__ = ["Delivery", "verify"]

_SIGNATURE = "x-hopx-signature"
_TIMESTAMP = "x-hopx-timestamp"
_SCHEME = "sha256="


class Delivery(Contract):
    """The result of an asynchronous execution; fields that this version does not know are kept too.

    Attributes:
        status: `completed`, `failed` or `timeout`.
        attempt: which one this is, counted from 1.
    """

    model_config = ConfigDict(extra="allow")

    execution_id: str
    status: str
    success: bool = False
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    execution_time: float | None = None
    timestamp: str = ""
    error: str | None = None
    sandbox_id: str | None = None
    attempt: int | None = None


def verify(
    body: bytes | bytearray | memoryview,
    headers: Mapping[str, str],
    secret: str | bytes,
    tolerance_seconds: float = 300,
) -> Delivery:
    """The delivery in `body`, once its signature is found to be right. The comparison takes constant time.

    Args:
        body: as it came, byte for byte: not parsed and written anew.
        headers: of the request, in any case of letters.
        secret: the `callback_signature_secret` of the execution.
        tolerance_seconds: how far its time may be off, so that an old delivery cannot be played back.

    Raises:
        AuthenticationFailed: it is not signed, not with this secret, or too old.
        InvalidRequest: `secret` is empty.
        PlatformFailure: it is signed, but not a delivery.
    """
    key = secret.encode() if isinstance(secret, str) else secret
    if not key:
        raise error("INVALID_REQUEST", "The secret is empty: anybody could sign with it.")
    given = {name.lower(): value for name, value in headers.items() if name.lower() in (_SIGNATURE, _TIMESTAMP)}
    timestamp, signature = given.get(_TIMESTAMP, ""), given.get(_SIGNATURE, "")
    if not timestamp or not signature:
        raise _refused("The request is not signed: X-HopX-Timestamp or X-HopX-Signature is missing.")
    if not (timestamp.isascii() and timestamp.isdecimal()) or len(timestamp) > 15:
        raise _refused("X-HopX-Timestamp is not a time.")
    raw = bytes(body)
    wanted = _SCHEME + hmac.new(key, timestamp.encode() + raw, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), signature.strip().lower().encode("utf-8", "replace")):
        raise _refused("The signature is not that of this body and this secret.")
    if abs(time.time() - int(timestamp)) > tolerance_seconds:
        raise _refused(f"The request was signed more than {tolerance_seconds:g} s ago, or in the future.")
    return parse(Delivery, raw)


def _refused(why: str) -> CoveError:
    return error("UNAUTHORIZED", why, remedy="Answer it with 401 and do not use it.")
