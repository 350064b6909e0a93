"""Sandboxes that live no longer than the program that asked for them.

`POST /v1/client-leases` answers with a stream that does not end by itself: newline-delimited JSON, first one `lease`
event, then an `alive` event every few seconds. Sandboxes made with the key of the lease are seen by that key only, and
are killed when the connection is lost, for whatever reason.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cove.models.base import Contract

LEASE_PATH = "/v1/client-leases"


class LeaseOpened(Contract):
    """The first line.

    Attributes:
        api_key: opens what the caller's own credential opens; for this lease.
    """

    type: Literal["lease"] = "lease"
    id: str
    api_key: str = Field(repr=False)


class LeaseAlive(Contract):
    """Shows the client that the server lives, and the server that the client does."""

    type: Literal["alive"] = "alive"


LeaseEvent = Annotated[LeaseOpened | LeaseAlive, Field(discriminator="type")]
LEASE_EVENT: TypeAdapter[LeaseOpened | LeaseAlive] = TypeAdapter(LeaseEvent)
