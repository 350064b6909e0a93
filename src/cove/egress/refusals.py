"""What may not be, or cannot."""

from typing import Final

from cove.models.network import RefusalCause

FORBIDDEN: Final = 403
UNREADABLE: Final = 400
BAD_GATEWAY: Final = 502

_CAUSES: Final = {
    FORBIDDEN: RefusalCause.POLICY,
    UNREADABLE: RefusalCause.REQUEST,
    BAD_GATEWAY: RefusalCause.HOST,
}


class Refused(Exception):
    """A connection or a request may not, or cannot, go where it wants; the reason, in words for the program's author
    and the operator. It never holds a secret's value.

    Attributes:
        status: with which a web request is answered (RFC 9110 §15): `FORBIDDEN`, or `BAD_GATEWAY` where the host
            outside is the cause.
        cause: follows from the status, unless it is given.
    """

    def __init__(self, reason: str, *, status: int = FORBIDDEN, cause: RefusalCause | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.cause = cause or _CAUSES[status]
