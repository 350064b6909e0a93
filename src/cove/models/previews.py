"""Previews: who may reach the programs in a sandbox that listen on a port, and links for whoever has no token."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from pydantic import Field

from cove.models.base import Contract

PREVIEW_HEADER: Final = "X-Cove-Preview-Token"
PREVIEW_PARAMETER: Final = "cove_preview_token"
"""Of a link's query. It is the gateway's: programs never see it."""

DEFAULT_LINK_SECONDS: Final = 3600
MAX_LINK_SECONDS: Final = 7 * 24 * 3600


class PreviewAccess(StrEnum):
    """Who may reach programs in a sandbox.

    `public`: everybody who knows the sandbox's id. `token`: who holds a link, or the sandbox's token.
    """

    PUBLIC = "public"
    TOKEN = "token"  # noqa: S105


class PreviewTerms(NamedTuple):
    """What holds for the previews of one sandbox.

    Attributes:
        access: None leaves it to the server.
        epoch: links that were given out in another one are void.
    """

    access: PreviewAccess | None = None
    epoch: int = 0


class CreatePreviewLink(Contract):
    """Body of `POST /v1/sandboxes/{id}/previews`.

    Attributes:
        port: that a program in the sandbox listens on, now or later.
        expires_in_seconds: from now; at most `MAX_LINK_SECONDS`. The end of the sandbox ends its links too.
    """

    port: int = Field(ge=1, le=65535, strict=True)
    expires_in_seconds: int = Field(default=DEFAULT_LINK_SECONDS, ge=1, le=MAX_LINK_SECONDS, strict=True)


class PreviewLink(Contract):
    """A link to one port of one sandbox, for whoever has it.

    Attributes:
        id: of the sandbox.
        url: to be opened in a browser, which keeps what it holds in a cookie; or to be asked as it is.
        token: what is in `url`, for clients that send it in the field `X-Cove-Preview-Token` instead.
        access: what is asked of those who have no link.
    """

    id: str
    port: int
    url: str
    token: str
    expires_at: datetime
    access: PreviewAccess
    request_id: str | None = None


class SetPreviewAccess(Contract):
    """Body of `PUT /v1/sandboxes/{id}/previews`."""

    access: PreviewAccess


class SandboxPreviews(Contract):
    """Answer to `PUT` and `DELETE /v1/sandboxes/{id}/previews`: what is in force now."""

    id: str
    access: PreviewAccess
    request_id: str | None = None
