"""For receivers of webhooks: whether a request really came from the server.

    from cove.sdk import webhooks

    delivery = webhooks.verify(body, headers, secret)
    print(delivery.execution_id, delivery.status)

A delivery can come more than once, with the same `X-HopX-Delivery` and `execution_id`.
"""

import hmac
import time
from collections.abc import Mapping

from pydantic import ConfigDict

from cove.models.async_executions import CallbackBody
from cove.models.callbacks import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from cove.models.errors import CoveError, error
from cove.sdk._failures import parse

__all__ = ["Delivery", "verify"]

_SIGNATURE = SIGNATURE_HEADER.lower()
_TIMESTAMP = TIMESTAMP_HEADER.lower()


class Delivery(CallbackBody):
    """The result of an asynchronous execution; fields that this version does not know are kept too."""

    model_config = ConfigDict(extra="allow")


def verify(
    body: bytes | bytearray | memoryview,
    headers: Mapping[str, str],
    secret: str,
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
    if not secret:
        raise error("INVALID_REQUEST", "The secret is empty: anybody could sign with it.")
    given = {name.lower(): value for name, value in headers.items() if name.lower() in (_SIGNATURE, _TIMESTAMP)}
    timestamp, signature = given.get(_TIMESTAMP, ""), given.get(_SIGNATURE, "")
    if not timestamp or not signature:
        raise _refused("The request is not signed: X-HopX-Timestamp or X-HopX-Signature is missing.")
    if not (timestamp.isascii() and timestamp.isdecimal()) or len(timestamp) > 15:
        raise _refused("X-HopX-Timestamp is not a time.")
    raw = bytes(body)
    wanted = sign(secret, timestamp, raw)
    if not hmac.compare_digest(wanted.encode(), signature.strip().lower().encode("utf-8", "replace")):
        raise _refused("The signature is not that of this body and this secret.")
    if abs(time.time() - int(timestamp)) > tolerance_seconds:
        raise _refused(f"The request was signed more than {tolerance_seconds:g} s ago, or in the future.")
    return parse(Delivery, raw)


def _refused(why: str) -> CoveError:
    return error("UNAUTHORIZED", why, remedy="Answer it with 401 and do not use it.")
