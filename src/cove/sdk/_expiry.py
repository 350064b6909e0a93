"""How long a sandbox has to live."""

from datetime import UTC, datetime
from typing import Self

from cove.models.base import Contract
from cove.models.sandboxes import SandboxInfo


class ExpiryInfo(Contract):
    """How long a sandbox has to live.

    Attributes:
        time_to_expiry: seconds, negative once it is over; None without a deadline.
    """

    expires_at: datetime | None = None
    time_to_expiry: int | None = None
    is_expired: bool = False
    is_expiring_soon: bool = False
    has_timeout: bool = False

    @classmethod
    def of(cls, info: SandboxInfo, *, threshold_seconds: float) -> Self:
        """From what the server says, by this machine's clock."""
        moment = info.expires_at
        if moment is None:
            return cls()
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        left = int((moment - datetime.now(UTC)).total_seconds())
        return cls(
            expires_at=moment,
            time_to_expiry=left,
            is_expired=left <= 0,
            is_expiring_soon=left <= threshold_seconds,
            has_timeout=True,
        )
