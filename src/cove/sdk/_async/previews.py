"""Programs in a sandbox that listen on a port, as they are reached from outside."""

from cove.models.agent import AGENT_PORT
from cove.models.previews import DEFAULT_LINK_SECONDS, PreviewAccess, PreviewLink
from cove.models.sandboxes import SandboxInfo
from cove.sdk._addresses import preview_url
from cove.sdk._async.control import AsyncControlPlane


class AsyncPreviews:
    """The methods of a sandbox about previews."""

    info: SandboxInfo
    _control: AsyncControlPlane

    async def get_preview_url(self, port: int = 7777) -> str:
        """The address at which a program inside that listens on `port` is reached from outside.

        Whoever knows it can use it, unless `info.preview_access` is `token`: then it takes a link (`preview_link`) or
        the sandbox's token, as it always does for the agent's own port 7777.

        Raises:
            InvalidRequest: `port` is not from 1 to 65535.
        """
        return preview_url(self.info, port)

    async def preview_link(self, port: int, *, expires_in: int = DEFAULT_LINK_SECONDS) -> PreviewLink:
        """A link (`url`) to a program inside that listens on `port`, now or later, for whoever has it. It works in
        browsers, which keep what it holds in a cookie for this one port, and for clients that ask it as it is. Its
        `token` can be sent in the field `X-Cove-Preview-Token` instead.

        Args:
            expires_in: seconds, at most 604800. The end of the sandbox ends its links too.

        Raises:
            InvalidRequest: `port` is not from 1 to 65535, or the agent's own.
        """
        return await self._control.preview_link(self.info.id, port, expires_in=expires_in)

    async def get_open_preview_url(self, port: int) -> str:
        """The address at which whoever is given it reaches a program inside now: as `get_preview_url`, or a link for an
        hour where that is needed."""
        if self.info.preview_access is not PreviewAccess.TOKEN or port == AGENT_PORT:
            return await self.get_preview_url(port)
        return (await self.preview_link(port)).url

    async def set_preview_access(self, access: PreviewAccess | str) -> None:
        """Change who may reach programs inside, from the next request on: `public` is everybody who knows the sandbox's
        id, `token` those who have a link or the sandbox's token."""
        answer = await self._control.set_preview_access(self.info.id, access)
        self.info = self.info.model_copy(update={"preview_access": answer.access})

    async def revoke_preview_links(self) -> None:
        """End all links that were made so far, from the next request on."""
        await self._control.revoke_preview_links(self.info.id)
