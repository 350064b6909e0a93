"""Keys that the server hands out for the time that it runs: to parts of itself that speak its API for somebody, and
to clients that hold a lease. They are kept in memory only."""

import hmac
import secrets
from collections.abc import Generator
from contextlib import contextmanager

from cove.core.principal import Principal

PREFIX = "cove_delegated_"
_ID_BYTES = 12
_SECRET_BYTES = 32


class DelegatedKeys:
    """Each stands for a principal that somebody has authenticated by other means, until it is withdrawn."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[bytes, Principal]] = {}

    def issue(self, principal: Principal) -> str:
        """A new key that stands for `principal` until `withdraw`."""
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        self._keys[key_id] = (secret.encode(), principal)
        return f"{PREFIX}{key_id}.{secret}"

    def withdraw(self, key: str) -> None:
        """Make the key useless, at once. Idempotent."""
        self._keys.pop(_parts(key)[0], None)

    @contextmanager
    def lent(self, principal: Principal) -> Generator[str]:
        """A key for the time of the block."""
        key = self.issue(principal)
        try:
            yield key
        finally:
            self.withdraw(key)

    def principal_of(self, key: str) -> Principal | None:
        """Whom the key stands for; None for one that was never issued, or withdrawn."""
        key_id, secret = _parts(key)
        found = self._keys.get(key_id)
        if found is None or not hmac.compare_digest(found[0], secret.encode()):
            return None
        return found[1]


def is_delegated(key: str) -> bool:
    """Whether the key is of this kind, valid or not."""
    return key.startswith(PREFIX)


def _parts(key: str) -> tuple[str, str]:
    key_id, _, secret = key.removeprefix(PREFIX).partition(".")
    return key_id, secret
