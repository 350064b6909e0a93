"""How often one client may fail to authenticate."""

import ipaddress
import math

from cove.core.rates import RateLimiter
from cove.models.errors import CoveError, error
from cove.server.api.context import Scope, header_of

FAILURES_PER_MINUTE = 60
_IPV6_CUSTOMER_BITS = 64


class FailedAttempts:
    """Answers too many failures of one address with 429, which makes well-meaning programs slow down and tells the
    others nothing more.

    A valid key passes all the same: the secret has 256 random bits, so nobody guesses one, and many clients may share
    an address with one that is broken.
    """

    def __init__(self, limiter: RateLimiter | None = None) -> None:
        self._limiter = limiter or RateLimiter(FAILURES_PER_MINUTE)

    def noted(self, scope: Scope, failure: CoveError) -> CoveError:
        """What to answer instead of `failure`, which is counted if it is about the key."""
        if failure.code != "AUTHENTICATION_REQUIRED":
            return failure
        verdict = self._limiter.take(_client_of(scope))
        if verdict.allowed:
            return failure
        return error(
            "RATE_LIMIT_EXCEEDED",
            "Too many requests without a valid API key came from this address.",
            remedy="Check the key, wait, and try again.",
            retry_after_seconds=math.ceil(verdict.wait_seconds),
        )


def _client_of(scope: Scope) -> str:
    """The client's address as the gateway saw it: the gateway drops what clients say about themselves."""
    sent = header_of(scope, b"x-forwarded-for") or ""
    try:
        address = ipaddress.ip_address(sent)
    except ValueError:
        return ""
    if address.version == 4:
        return sent
    return str(ipaddress.ip_network((address, _IPV6_CUSTOMER_BITS), strict=False))
